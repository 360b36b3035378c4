#!/bin/sh
# Makes acme/shop with the environments dev and prod, brings example advisories, pushes an image that names an old
# openssl, and sets the policy of prod. Safe to run again.
#
# Needs kubectl, gantry, busybox, and the kubeconfig of the platform's administrator. ADVISORIES is where the server
# looks for advisories: the directory `advisories` in its data directory, unless its configuration says otherwise.
#
#   KUBECONFIG=/var/lib/gantry/kubeconfig ADVISORIES=/var/lib/gantry/advisories ./make.sh
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
: "${ADVISORIES:?the directory of advisories that the server looks at}"
: "${BUSYBOX:=$(command -v busybox)}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gantry domain show acme >/dev/null 2>&1 || gantry domain create acme >&2
gantry project show acme/shop >/dev/null 2>&1 ||
  gantry project create acme/shop --environment dev --environment prod >&2
for namespace in shop-dev shop-prod; do
  kubectl wait --for=create --timeout=60s "namespace/$namespace" >&2
  kubectl wait --for=create --timeout=60s -n "$namespace" serviceaccount/default >&2
done

# As fresh as if they were published now, and in a place that stays: it is a source from now on.
source=$(dirname "$ADVISORIES")/example-advisories
mkdir -p "$source"
for advisory in "$here"/advisories/*.json; do
  sed "s/@NOW@/$(date -u +%Y-%m-%dT%H:%M:%SZ)/" "$advisory" >"$source/$(basename "$advisory")"
done
gantry advisories update "$source" --directory "$ADVISORIES" >&2

# Version 1 has the old openssl, version 2 the one that mends it. The program is busybox in both.
image() {
  cp -R "$here/image" "$work/$1"
  mkdir "$work/$1/bin"
  cp "$BUSYBOX" "$work/$1/bin/busybox"
  sed "s/^Version: 3.0.8-1$/Version: $2/" "$here/image/var/lib/dpkg/status" >"$work/$1/var/lib/dpkg/status"
  gantry image pack "$work/$1" --destination / --tag "acme/shop/web:$1" --port 8080 \
    --entrypoint /bin/busybox --entrypoint httpd --entrypoint -f --entrypoint -p --entrypoint 8080 \
    --entrypoint -h --entrypoint /srv
}
image 1 3.0.8-1
image 2 3.0.9-1

kubectl apply -f "$here/policy.yaml" >&2
