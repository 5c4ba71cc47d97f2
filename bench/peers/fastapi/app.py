"""An avatar service with FastAPI, Pillow, S3 and Redis, of the kind that teams write.

PICTURES=common makes each size from the full picture on the framework's threads. PICTURES=best decodes
at the needed scale, makes each size from the previous one, and bounds the number of threads.
"""

import asyncio
import io
import os
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aioboto3
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from botocore.config import Config
from fastapi import FastAPI, HTTPException, UploadFile
from PIL import Image
from redis.asyncio import Redis

import pictures

FORM = os.environ["PICTURES"]
BUCKET = os.environ["S3_BUCKET"]
MAX_BYTES = 5 * 2**20
MIN_EDGE_PX, MAX_EDGE_PX = 100, 4096
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")

Image.MAX_IMAGE_PIXELS = MAX_EDGE_PX**2


@asynccontextmanager
async def lifespan(app: FastAPI):
    # None means the 40 threads that the framework has for blocking calls.
    app.state.threads = CapacityLimiter(os.cpu_count() or 1) if FORM == "best" else None
    s3 = aioboto3.Session().client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT"],
        config=Config(
            max_pool_connections=64,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    redis = Redis.from_url(os.environ["REDIS_URL"])
    async with s3 as app.state.s3, redis as app.state.redis:
        yield


app = FastAPI(lifespan=lifespan)


def open_checked(data: bytes) -> Image.Image:
    """Reads the header. The bytes decide the format, never the name."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise HTTPException(400, "too many pixels") from error
    except OSError as error:
        raise HTTPException(400, "not a picture that is accepted") from error
    if not all(MIN_EDGE_PX <= edge <= MAX_EDGE_PX for edge in image.size):
        raise HTTPException(400, f"{image.width} x {image.height} px; 100 to 4096 px a side")
    return image


def process(data: bytes) -> tuple[dict[str, bytes], str, tuple[int, int]]:
    image = open_checked(data)
    kind, size = image.format, image.size
    try:
        return getattr(pictures, FORM)(image), kind, size
    except OSError as error:
        raise HTTPException(422, "the picture is corrupt") from error


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/users/{user_id}/avatar")
async def upload(user_id: str, file: UploadFile):
    data = await file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise HTTPException(413, "at most 5 MiB")
    files, kind, (width, height) = await run_sync(process, data, limiter=app.state.threads)
    avatar_id = uuid.uuid4().hex
    keys = {name: f"public/avatars/{avatar_id}/{name}.webp" for name in files}
    await asyncio.gather(*(
        app.state.s3.put_object(
            Bucket=BUCKET,
            Key=keys[name],
            Body=body,
            ContentType="image/webp",
            CacheControl="public, max-age=31536000, immutable",
        )
        for name, body in files.items()
    ))
    uploaded_at = datetime.now(UTC).isoformat()
    await app.state.redis.hset(f"avatar:{user_id}", mapping={
        "avatar_id": avatar_id,
        "format": kind,
        "width": width,
        "height": height,
        "bytes": len(data),
        "uploaded_at": uploaded_at,
    })
    base = f"{os.environ['S3_ENDPOINT']}/{BUCKET}"
    return {
        "user_id": user_id,
        "avatar_id": avatar_id,
        "variants": {name: f"{base}/{key}" for name, key in keys.items()},
        "uploaded_at": uploaded_at,
    }
