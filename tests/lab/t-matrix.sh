#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# time-limit: 400
# A part of the move matrix with real QEMUs: every fault and every phase, the accident of two copies among them. All of it:
# tests/lab/matrix --full
# shellcheck source-path=SCRIPTDIR source=testlib.sh
. "$(dirname "$0")/testlib.sh"
requires ip nft qemu-system-x86_64 corosync jq python3

lab_start --nodes 3 --vms 1 --vm-memory 64MiB --ws 2 --dirty 200
"$TEST_SOURCE/matrix" --quick --lab "$DROVER_LAB"
