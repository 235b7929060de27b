"""Worked examples: small studies whose figures a formula gives as well."""
