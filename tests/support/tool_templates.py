"""Chat templates that render tools in other ways than Phi-3's, which leaves them out."""

_END = "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
# As Phi-4-mini's: it takes tools as a field of the system message, and leaves calls out.
OF_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['tools'] %}"
    "{{ '<|system|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|><|end|>' }}{% else %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
OF_SYSTEM_TOKENS = ["<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>"]
# It writes a call without any mark before its JSON.
KNOWS_TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "{{ '<|end|>\n' }}" + _END
)
# As Phi-3-medium's: it knows users and assistants, and writes the assistant's header after each user.
DROPS_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|user|>\n' + message['content'] + '<|end|>\n<|assistant|>\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
)
