"""From a file of chats to a fine-tuned Phi-3 behind Prompt flow, with proof that it beats the base."""

__version__ = "0.2.0"
