"""Speed of DPO as padded batches train it, to compare with `plm align`: a step takes B pairs, chosen and rejected answers concatenated to one
batch of 2B rows padded on the right to its longest, and runs policy and reference live. The same architecture in plain PyTorch with
scaled_dot_product_attention, float32, AdamW. Needs torch and tokenizers from PyPI.

    python3 tests/bench/dpo_padded.py --config configs/quickstart.json --tokenizer build/quickstart/tokenizer.json \\
        --pairs PAIRS.jsonl --fields prompt=instruction,chosen=text,rejected=decoded

Weights are random: speed does not depend on them. `real tokens` are those of prompts and answers, each pair's prompt counted twice.
"""
import argparse
import json
import math
import random
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Tokenizer


def rope_tables(length, n, theta):
    angle = torch.arange(length)[:, None] * theta ** (-torch.arange(0, n, 2) / n)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Pairs (x[2i], x[2i+1]) of x [B, H, T, n] by the tables [T, n/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.nope, self.rope, self.v, self.rank = (c[k] for k in (
            "num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
        d = c["hidden_size"]
        self.q = nn.Linear(d, self.heads * (self.nope + self.rope), bias=False)
        self.kv_a = nn.Linear(d, self.rank + self.rope, bias=False)
        self.kv_norm = nn.RMSNorm(self.rank, eps=1e-6)
        self.kv_b = nn.Linear(self.rank, self.heads * (self.nope + self.v), bias=False)
        self.o = nn.Linear(self.heads * self.v, d, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, -1).transpose(1, 2)
        q = torch.cat((q[..., :self.nope], rotate(q[..., self.nope:], cos, sin)), -1)
        latent, k_rope = self.kv_a(x).split((self.rank, self.rope), -1)
        kv = self.kv_b(self.kv_norm(latent)).view(b, t, self.heads, -1).transpose(1, 2)
        k_rope = rotate(k_rope[:, None], cos, sin).expand(-1, self.heads, -1, -1)
        k = torch.cat((kv[..., :self.nope], k_rope), -1)
        # right-padded and causal: no real token sees padding, so that no mask is needed and the fast path is taken
        y = F.scaled_dot_product_attention(q, k, kv[..., self.nope:], is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["hidden_size"]
        self.norm1, self.norm2 = nn.RMSNorm(d, eps=1e-6), nn.RMSNorm(d, eps=1e-6)
        self.attention = Attention(c)
        self.up = nn.Linear(d, c["intermediate_size"], bias=False)
        self.down = nn.Linear(c["intermediate_size"], d, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.down(F.relu(self.up(self.norm2(x))).square())


class Model(nn.Module):
    def __init__(self, c, max_length):
        super().__init__()
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], eps=1e-6)
        cos, sin = rope_tables(max_length, c["qk_rope_head_dim"], c.get("rope_theta", 100000))
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=c.get("initializer_range", 0.02))

    def forward(self, tokens):
        """Hidden states after the last norm, [B, T, d]."""
        x, t = self.embed(tokens), tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:t], self.sin[:t])
        return self.norm(x)


def answer_log_probs(model, tokens, is_answer, all_logits):
    """Sums of the log-probabilities of the answers' tokens, [B]."""
    hidden, target, weight = model(tokens)[:, :-1], tokens[:, 1:], is_answer[:, 1:]
    if all_logits:                                  # as trainers do that call the model for its logits
        logits = hidden @ model.embed.weight.T
        return -F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape).mul(weight).sum(-1)
    rows = weight.nonzero(as_tuple=True)            # only where an answer is predicted
    logits = hidden[rows] @ model.embed.weight.T
    nll = F.cross_entropy(logits, target[rows], reduction="none")
    return torch.zeros(len(tokens)).index_add(0, rows[0], -nll)


def read_pairs(path, fields, tokenizer, max_length):
    """(prompt, chosen, rejected) as ids in ChatML, an end after each answer; pairs with a longer sequence are left out and counted."""
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    wrap = lambda text: encode("<|im_start|>user\n") + encode(text) + encode("<|im_end|>\n<|im_start|>assistant\n")
    end = encode("<|im_end|>")
    pairs, longer, equal = [], 0, 0
    with open(path, encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            prompt, chosen, rejected = (row[fields[k]] for k in ("prompt", "chosen", "rejected"))
            if chosen.strip() == rejected.strip():
                equal += 1
                continue
            pair = wrap(prompt), encode(chosen) + end, encode(rejected) + end
            if len(pair[0]) + max(len(pair[1]), len(pair[2])) > max_length:
                longer += 1
            else:
                pairs.append(pair)
    return pairs, longer, equal


def describe(pairs):
    print(f"{'tokens':10}{'mean':>8}" + "".join(f"{f'p{p}':>7}" for p in (5, 25, 50, 75, 90, 95, 99)) + f"{'max':>7}")
    series = {"prompt": [len(p[0]) for p in pairs], "chosen": [len(p[1]) for p in pairs], "rejected": [len(p[2]) for p in pairs],
              "sequence": [len(p[0]) + len(a) for p in pairs for a in p[1:]]}
    for name, values in series.items():
        values = sorted(values)
        at = [values[min(len(values) - 1, len(values) * p // 100)] for p in (5, 25, 50, 75, 90, 95, 99)]
        print(f"{name:10}{sum(values) / len(values):8.1f}" + "".join(f"{v:7}" for v in at) + f"{values[-1]:7}")


def collate(pairs):
    """[2B, longest] ids and answer mask: chosen rows, then rejected rows."""
    rows = [(p, c) for p, c, _ in pairs] + [(p, r) for p, _, r in pairs]
    longest = max(len(p) + len(a) for p, a in rows)
    tokens, is_answer = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest)
    for i, (p, a) in enumerate(rows):
        tokens[i, :len(p) + len(a)] = torch.tensor(p + a)
        is_answer[i, len(p):len(p) + len(a)] = 1
    return tokens, is_answer


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--config", required=True, help="a plm configuration: its model")
    arguments.add_argument("--tokenizer", required=True)
    arguments.add_argument("--pairs", required=True, help="JSON lines")
    arguments.add_argument("--fields", default="prompt=prompt,chosen=chosen,rejected=rejected")
    arguments.add_argument("--max-length", type=int, default=512, help="pairs with longer sequences are left out (default 512)")
    arguments.add_argument("--batch", type=int, default=8, help="pairs per step (default 8, as in TRL)")
    arguments.add_argument("--steps", type=int, default=20, help="measured steps, after two to warm up (default 20)")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--group-by-length", action="store_true", help="batches of similar lengths, which costs randomness")
    arguments.add_argument("--all-logits", action="store_true", help="logits of every position, padding included, as TRL makes them by default")
    arguments.add_argument("--lengths", help="write the lengths of all pairs as JSON to this file")
    a = arguments.parse_args()
    if a.steps < 1 or a.batch < 1:
        arguments.error("--steps and --batch are whole numbers from 1")
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    with open(a.config, encoding="utf-8") as f:
        config = json.load(f)["model"]
    fields = dict(item.split("=") for item in a.fields.split(","))
    pairs, longer, equal = read_pairs(a.pairs, fields, Tokenizer.from_file(a.tokenizer), a.max_length)
    print(f"{len(pairs)} pairs; left out: {longer} longer than {a.max_length} tokens, {equal} with equal answers")
    describe(pairs)
    if a.lengths:
        with open(a.lengths, "w", encoding="utf-8") as f:
            json.dump([[len(x) for x in p] for p in pairs], f)
    policy, reference = Model(config, a.max_length), Model(config, a.max_length).requires_grad_(False)
    reference.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-6)
    order = list(range(len(pairs)))
    random.Random(1).shuffle(order)
    if a.group_by_length:
        order.sort(key=lambda i: len(pairs[i][0]) + max(len(pairs[i][1]), len(pairs[i][2])))
    batches = [order[i:i + a.batch] for i in range(0, len(order) - a.batch + 1, a.batch)]
    random.Random(2).shuffle(batches)
    padded = real = 0
    for batch in batches:                           # of the whole epoch
        lengths = [len(pairs[i][0]) + len(answer) for i in batch for answer in pairs[i][1:]]
        padded, real = padded + len(lengths) * max(lengths), real + sum(lengths)
    print(f"{sum(p.numel() for p in policy.parameters()) / 1e6:.2f} M parameters; batches of {a.batch} pairs: {100 * (1 - real / padded):.1f} % padding")
    seconds, tokens_seen, first = [], [], math.nan
    for step, batch in enumerate(batches[:a.steps + 2]):
        start = time.perf_counter()
        tokens, is_answer = collate([pairs[i] for i in batch])
        with torch.no_grad():
            ref = answer_log_probs(reference, tokens, is_answer, a.all_logits)
        ratio = answer_log_probs(policy, tokens, is_answer, a.all_logits) - ref
        loss = -F.logsigmoid(0.1 * (ratio[:len(batch)] - ratio[len(batch):])).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            first = loss.item()
        if step >= 2:                               # two to warm up
            seconds.append(time.perf_counter() - start)
            tokens_seen.append(sum(2 * len(pairs[i][0]) + len(pairs[i][1]) + len(pairs[i][2]) for i in batch))
    print(f"first loss {first:.6f} (ln 2 = {math.log(2):.6f})")
    print(f"{len(seconds)} steps on {a.threads} threads: {len(seconds) * a.batch / sum(seconds):.2f} pairs/s, {sum(tokens_seen) / sum(seconds):.0f} real tokens/s")


if __name__ == "__main__":
    main()
