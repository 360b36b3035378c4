#!/bin/sh
# Makes the two organisations and gives every user a password, which is printed once. Safe to run again: objects stay
# as they are, passwords are made anew.
#
# Needs kubectl, gantry and the kubeconfig of the platform's administrator:
#
#   KUBECONFIG=/var/lib/gantry/kubeconfig ./seed.sh
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

kubectl apply -f "$here/organisations.yaml" >&2

for namespace in web-dev web-prod cart-dev lab-dev; do
  kubectl wait --for=create --timeout=60s "namespace/$namespace" >&2
done

printf '%-16s%s\n' USER PASSWORD
for user in acme/alice acme/bob acme/carol globex/eve globex/frank; do
  password=$(gantry user password "$user" --generate 2>/dev/null)
  printf '%-16s%s\n' "$user" "$password"
done
