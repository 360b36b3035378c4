#!/bin/sh
# Removes the two organisations with everything in them. Takes the same kubeconfig as seed.sh.
set -eu
for domain in acme globex; do
  gantry domain set "$domain" --disable
  gantry domain delete "$domain" --confirm "$domain"
done
