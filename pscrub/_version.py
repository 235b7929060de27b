"""The version, which results carry."""

VERSION = "0.1.0"
