"""The names that fields of a row may have; capitals, spaces and hyphens do not matter."""

CHATS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "data", "contents")
QUESTIONS = ("question", "instruction", "prompt", "query")
ANSWERS = ("answer", "output", "response", "completion", "reply")
SYSTEMS = ("system", "system_prompt", "system_message", "systeminstruction", "system_instruction")
LABELS = ("prompt_id", "slice", "cluster")
UNANSWERABLE = "unanswerable"
RESPONSE_FORMAT = "response_format"  # OpenAI's: the schema that the answer is to follow
BESIDE = ("input", "context", "history", "tools")  # what goes with a question, or with a chat
PREFERENCES = ("chosen", "rejected", "preferred_output", "non_preferred_output")
# What `--columns` can name, and what a table's header is told by.
NAMES = (*CHATS, *QUESTIONS, *ANSWERS, *SYSTEMS, *BESIDE, *LABELS, UNANSWERABLE, *PREFERENCES, "answers")
