//! What a statement is: the lexer, verdicts, and the cache of verdicts. Pure.
