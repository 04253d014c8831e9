#!/bin/sh
# Make the files below docker/secrets/ that docker-compose.yml hands over, each once; what is there stays.
#
# Compose mounts each file as it is, and no process in a container is root: so everybody may read the files, and nobody
# but you the folder that they lie in.
set -eu
folder=${1:-"$(dirname "$0")/secrets"}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() {
    head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'
}

make() {
    [ -e "$folder/$1" ] && return
    printf '%s' "$2" >"$folder/$1"
    chmod 444 "$folder/$1"
    echo "made $folder/$1"
}

make postgres-password "$(random)"
make redis-password "$(random)"
make signing-secret "$(random)"
make api-key "loram_$(random)"
# empty: without a token. Put in what is needed to publish to a Hub elsewhere and to read gated base models
make hub-token ""
make base-model-token ""
# empty: nothing is signed. Put in the private key, as PEM, that workers sign checkpoints with (docs/verify.md)
make model-signing-key ""
