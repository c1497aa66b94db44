#!/bin/sh
# Bugs on purpose: each must be caught, and the last line says by what.
set -eu
exec ./run --mutant all
