# For PGXN's client and everybody else who types make: builds for the server of PG_CONFIG and installs into it.
PG_CONFIG ?= pg_config

all:
	cargo xtask install --pg-config $(PG_CONFIG) --build-only

install:
	cargo xtask install --pg-config $(PG_CONFIG)

installcheck:
	cargo xtask test --only regress --only isolation

.PHONY: all install installcheck
