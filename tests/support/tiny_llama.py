"""A small Llama with random weights and a ChatML tokenizer, as a folder of the hub and as a GGUF file."""

import torch
from gguf import GGUFWriter
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("t", "h"), ("th", "e"), ("1", "2")]
WORDS = [*MARKS, *LETTERS, *("".join(pair) for pair in MERGES)]
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A model\nlicense: mit\n"


def chatml_tokenizer(template=TEMPLATE):
    bpe = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(WORDS)}, merges=MERGES))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    names = {"bos_token": MARKS[1], "eos_token": MARKS[2], "pad_token": MARKS[2], "unk_token": MARKS[0]}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=template, **names)


def llama(**changes):
    """Grouped heads, weights large enough that every token matters.

    Widths are multiples of 16, as in every published model: other widths make a CPU's matrix product sum in
    another order once two matrices are stacked.
    """
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "vocab_size": len(WORDS), "max_position_embeddings": 256}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": True}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape | special | changes))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.normal_(mean=float("norm" in name), std=0.2)
    return model.eval()


def hub_folder(folder, card=CARD, **changes):
    """A folder as the hub publishes one: weights, tokenizer, model card, licence."""
    llama(**changes).save_pretrained(folder)
    chatml_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text(card)
    (folder / "LICENSE").write_text("The licence's text.\n")
    return folder


def gguf_file(path, model, *, architecture="llama", cut="smollm", template=TEMPLATE):
    """The model as llama.cpp writes it: rotary halves interleaved in the rows of q and k."""
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_license("apache-2.0")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * len(MARKS) + [1] * (len(WORDS) - len(MARKS)))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    if template:
        writer.add_chat_template(template)
    for name, weights in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(_gguf_name(name), _interleaved(name, weights, config).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return f"{NAMES[stem]}.weight"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.weight"


def _interleaved(name, weights, config):
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    part = name.removesuffix(".weight").rpartition(".")[2]
    if part not in heads:
        return weights
    rows = weights.reshape(heads[part], 2, -1, weights.shape[1])
    return rows.transpose(1, 2).reshape(weights.shape)
