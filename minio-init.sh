#!/bin/sh
# Makes the bucket, its policy and a user for Cameo, so that the service has only
# the rights that it needs. It can be run again: a second run changes nothing.
#
#     MINIO_URL=http://minio:9000 MINIO_ROOT_USER=... MINIO_ROOT_PASSWORD=... \
#     CAMEO_ACCESS_KEY=cameo-service CAMEO_SECRET_KEY=... ./minio-init.sh
#
# MINIO_ROOT_PASSWORD_FILE and CAMEO_SECRET_KEY_FILE name files that hold the
# secrets instead. CAMEO_BUCKET is the bucket's name ("avatars"). The script
# waits up to MINIO_WAIT seconds (60) for the server.
#
# Needs `mc`, the MinIO client, in any of its builds. Afterwards give Cameo the
# two CAMEO_ keys as storage.s3.access_key_id and storage.s3.secret_access_key.
set -eu

: "${MINIO_URL:?is the address of the server}"
: "${MINIO_ROOT_USER:?is the user that may do everything}"
: "${CAMEO_ACCESS_KEY:?is the name of the user that is made for Cameo}"
if [ -n "${MINIO_ROOT_PASSWORD_FILE:-}" ]; then
    MINIO_ROOT_PASSWORD=$(cat "$MINIO_ROOT_PASSWORD_FILE")
fi
if [ -n "${CAMEO_SECRET_KEY_FILE:-}" ]; then
    CAMEO_SECRET_KEY=$(cat "$CAMEO_SECRET_KEY_FILE")
fi
: "${MINIO_ROOT_PASSWORD:?is the password of MINIO_ROOT_USER}"
: "${CAMEO_SECRET_KEY:?is the password of CAMEO_ACCESS_KEY}"
bucket=${CAMEO_BUCKET:-avatars}
wait=${MINIO_WAIT:-60}

command -v mc >/dev/null || { echo "mc, the MinIO client, is missing" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MC_CONFIG_DIR="$work/mc"

# Secrets go through standard input, because every user of the machine can see
# the arguments of a program.
log_in() {
    printf '%s\n%s\n' "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" \
        | mc alias set cameo "$MINIO_URL" >"$work/log-in" 2>&1
}
waited=0
until log_in; do
    if [ "$waited" -ge "$wait" ]; then
        cat "$work/log-in" >&2
        echo "no access to $MINIO_URL within $wait s" >&2
        exit 1
    fi
    sleep 1
    waited=$((waited + 1))
done
mc mb --ignore-existing "cameo/$bucket"

# Anyone can read the objects under public/, and nobody can list them. This
# replaces an existing policy of the bucket.
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

# The service can read, write, list and delete objects. It cannot change the bucket.
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
# The policy is named after its bucket, so several buckets on one server do not
# share a policy.
policy=cameo-service-$bucket
printf '%s\n%s\n' "$CAMEO_ACCESS_KEY" "$CAMEO_SECRET_KEY" | mc admin user add cameo
mc admin policy create cameo "$policy" "$work/service.json"
# A policy that is already attached is an error of mc, and success here.
if ! mc admin policy attach cameo "$policy" --user "$CAMEO_ACCESS_KEY" 2>"$work/attach"; then
    message=$(cat "$work/attach")
    case $message in
        *[Aa]lready*) ;;
        *) echo "$message" >&2; exit 1 ;;
    esac
fi
echo "bucket $bucket is ready for $CAMEO_ACCESS_KEY"
