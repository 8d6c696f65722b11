"""The models under study, each with its tokenizer and its way to answer."""
