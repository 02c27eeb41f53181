#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, each once: files that exist are kept.
#   deploy/docker/secrets.sh [FOLDER]      (default: secrets/ beside this script)
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
# The folder keeps other users of the machine out; the files can be read, since each container runs as a user of its own.
chmod 700 "$folder"
cd "$folder"

random() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
keep() { [ -s "$1" ] || { cat >"$1.new" && chmod 644 "$1.new" && mv "$1.new" "$1"; }; }

random | keep database_password
printf 'postgresql+asyncpg://fewstep:%s@postgres:5432/fewstep' "$(cat database_password)" | keep database_url
random | keep ray_token
random | keep gateway_key
printf 'fsk_%s' "$(random)" | keep api_key
random | keep s3_secret
printf '[default]\naws_access_key_id = fewstep\naws_secret_access_key = %s\n' "$(cat s3_secret)" | keep aws_credentials
printf '{"identities": [{"name": "fewstep", "credentials": [{"accessKey": "fewstep", "secretKey": "%s"}], "actions": ["Admin"]}]}\n' \
    "$(cat s3_secret)" | keep s3_identities
echo "The secrets are in $(pwd); the first API key is in api_key."
