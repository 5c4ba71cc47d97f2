#!/bin/sh
# Makes the bucket, its policy and a user for Cameo beforehand, for operators who
# do not want the service to have more rights than it needs. May be run again.
#
#     MINIO_URL=http://minio:9000 MINIO_ROOT_USER=... MINIO_ROOT_PASSWORD=... \
#     CAMEO_ACCESS_KEY=cameo-service CAMEO_SECRET_KEY=... deploy/minio-init.sh
#
# Needs `mc`, the MinIO client, in any of its builds. Afterwards give Cameo the
# two CAMEO_ keys as storage.s3.access_key_id and storage.s3.secret_access_key.
set -eu

: "${MINIO_URL:?is the address of the server}"
: "${MINIO_ROOT_USER:?is who may do everything}" "${MINIO_ROOT_PASSWORD:?}"
: "${CAMEO_ACCESS_KEY:?is what the service is to be called}" "${CAMEO_SECRET_KEY:?}"
bucket=${CAMEO_BUCKET:-avatars}

command -v mc >/dev/null || { echo "mc, the MinIO client, is missing" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MC_CONFIG_DIR="$work/mc"

# Secrets go by standard input: arguments are seen by every user of the machine.
printf '%s\n%s\n' "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" \
    | mc alias set cameo "$MINIO_URL" >/dev/null
mc mb --ignore-existing "cameo/$bucket"

# Anybody may read what lies under public/, and list nothing. Another policy of
# the bucket's is replaced.
cat >"$work/public.json" <<POLICY
{
  "Version": "2012-10-17",
  "Statement": [{
    "Sid": "CameoPublicRead",
    "Effect": "Allow",
    "Principal": {"AWS": ["*"]},
    "Action": ["s3:GetObject"],
    "Resource": ["arn:aws:s3:::$bucket/public/*"]
  }]
}
POLICY
mc anonymous set-json "$work/public.json" "cameo/$bucket"

# The service may work with the objects, and change nothing about the bucket.
cat >"$work/service.json" <<POLICY
{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Action": ["s3:ListBucket"],
     "Resource": ["arn:aws:s3:::$bucket"]},
    {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
     "Resource": ["arn:aws:s3:::$bucket/*"]}
  ]
}
POLICY
# A bucket's policy has the bucket's name: others of this server keep theirs.
policy=cameo-service-$bucket
printf '%s\n%s\n' "$CAMEO_ACCESS_KEY" "$CAMEO_SECRET_KEY" | mc admin user add cameo
mc admin policy create cameo "$policy" "$work/service.json"
# Attached already is as good as attached.
mc admin policy attach cameo "$policy" --user "$CAMEO_ACCESS_KEY" 2>"$work/attach" \
    || grep -qi 'already' "$work/attach" || { cat "$work/attach" >&2; exit 1; }
echo "bucket $bucket is ready for $CAMEO_ACCESS_KEY"
