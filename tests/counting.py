"""Chats that a tiny model learns in seconds: what comes after a number."""


def chat(i: int) -> dict[str, list[dict[str, str]]]:
    question = {"role": "user", "content": f"What comes after {i}?"}
    return {"messages": [question, {"role": "assistant", "content": f"After {i} comes {i + 1}."}]}
