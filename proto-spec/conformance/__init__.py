"""Which duties of PROTOCOL.md an implementation fulfils. `scripts/conformance` runs it; README.md says how."""
