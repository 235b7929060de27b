"""What the paper's section 5 claims, one file a claim: statement, argument, and the routes by which it is checked."""
