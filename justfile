# `just` lists what there is. Needs https://just.systems; every recipe is short enough to type.

_default:
    @just --list

# Everything that has to hold before a change is done.
check:
    .ci/run

# Every test.
test:
    cargo test

# The tests of crashes, in their long forms: an hour or so.
long:
    CAESIUM_KILL_ROUNDS=2000 cargo test --test host_killed -- --nocapture
    PROPTEST_CASES=100000 cargo test --test lifecycle_properties --test retry

# The journal against power cuts, kills, full and failing disks and damage, in long forms: one table.
torture:
    scripts/torture

# Hosts and keepers that are killed at every named point and at random, in long forms: one table.
torture-host:
    scripts/torture-host

# Writes the generated parts of docs/lifecycle.md anew.
bless:
    CAESIUM_BLESS=1 cargo test --test lifecycle_docs

# Known vulnerabilities of dependencies; fetches the advisory database.
advisories:
    cargo deny check advisories

# What the journal, the lifecycle and a process cost on this machine.
bench:
    cargo bench

# 1,000 processes through the journal, beside bare std::process::Command.
parallel:
    cargo run --release --example parallel
