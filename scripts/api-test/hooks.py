"""What Schemathesis cannot know about Cameo: pictures, and the ids of users and images that exist.

run.py sets the environment variables that this module reads.
"""

import os
import urllib.parse
import zlib

import schemathesis
from hypothesis import strategies

PICTURE = bytes.fromhex(os.environ["CAMEO_TEST_PICTURE"])
USERS = ["42", "me"]
IMAGE = os.environ["CAMEO_TEST_IMAGE"].split("/")
# The parameters that sign the link of the image, if it has to be signed.
LINK = dict(urllib.parse.parse_qsl(os.environ["CAMEO_TEST_LINK"]))

# A good picture, its first half, and bytes that are no picture.
PICTURES = strategies.sampled_from([PICTURE, PICTURE, PICTURE[: len(PICTURE) // 2], b"no picture", b""])

schemathesis.openapi.media_type("image/*", PICTURES)
schemathesis.openapi.format("binary", PICTURES)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Half of the requests are for a user or an image that exists. The request itself decides."""
    parameters = case.path_parameters
    if not parameters or zlib.crc32(repr((case.method, parameters, case.query)).encode()) % 2:
        return
    if "user_id" in parameters:
        parameters["user_id"] = USERS[len(str(parameters["user_id"])) % len(USERS)]
    if "avatar_id" in parameters and len(IMAGE) == 2:
        parameters["avatar_id"], parameters["file"] = IMAGE
        case.query = {**(case.query or {}), **LINK}
