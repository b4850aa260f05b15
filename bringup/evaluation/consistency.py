"""Does a model agree with itself, and with HF? Prefill and decode, boundaries, a second prompt, batches, seeds.

Only what the HF-facing contract has is used, so that any model.py can be asked. One text runs through the HF model in
float32 and in bfloat16; the logits of both at every position are what the device is held against.
"""

import inspect
import math
from dataclasses import dataclass, field

from bringup.checkpoints.session import Session
from bringup.errors import BadInput, BringupError
from bringup.evaluation.pcc import rel_l2

BOUNDARIES = (1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129)
LENGTHS = (1, 2, 31, 32, 33, 100)
# HF in bfloat16 is the yardstick of what a 16-bit format explains. A small trained Llama run whole on the functional
# simulator: 0.0067 for HF in bfloat16, 0.0189 with bfloat8_b weights and the library's default configs, 2.8 times that.
OF_BF16 = 5.0
# One position may be this much worse than the median one (the four small checkpoints: at most 2.9)...
OF_MEDIAN = 4.0
# ...or than HF's own worst position in bfloat16, whose outliers are the text's and not the device's.
OF_WORST_BF16 = 2.0
UNDECIDED = 4.0  # times what is explained of a logit: where HF's lead is smaller, another prediction is no error
USERS, USER_TOKENS, USER_STEPS = 32, 9, 3  # of the batch: users, tokens of the longest prompt, steps after it
LEAST = 1e-3  # of the mean size of logits: HF's own may be zeros
ASSUMED_BF16 = 0.0067  # where HF in float32 does not fit into memory


@dataclass
class ConsistencyResult:
    """One question: `ok` is None where it could not be asked, and `detail` says why."""

    name: str
    ok: bool | None
    detail: str
    figures: dict = field(default_factory=dict)


@dataclass
class Text:
    """Token `ids` and HF's logits [n, vocabulary] in float32 after each of `positions` tokens; how far bfloat16 is."""

    ids: list
    positions: list
    logits: object
    bf16: float  # relative L2, over all positions
    bf16_worst: float  # of one position
    hf: object = field(default=None, repr=False)  # the model, for the questions about many users

    @classmethod
    def through(cls, hf_model, ids, length):
        """`ids`, repeated to `length`, through the HF model; the positions kept are those that CHECKS ask about."""
        import torch

        from bringup.checkpoints.compute_dtype import computing_in

        ids = (list(ids) * (length // len(ids) + 1))[:length]
        positions = sorted(
            {p for p in (*range(1, BOUNDARIES[-1] + 1), *range(length - 4, length + 1)) if 1 <= p <= length}
        )
        keep = torch.tensor(positions) - 1

        def logits(dtype):
            with computing_in(hf_model, dtype), torch.inference_mode():
                return hf_model(torch.tensor([ids]), use_cache=False, logits_to_keep=keep).logits[0].float()

        narrow = logits(torch.bfloat16)
        try:
            wide = logits(torch.float32)
        except BadInput:
            return cls(ids, positions, narrow, ASSUMED_BF16, 2 * ASSUMED_BF16, hf_model)
        return cls(ids, positions, wide, rel_l2(wide, narrow), float(distances(wide, narrow).max()), hf_model)

    def crowd(self, masked):
        """32 users with texts of their own, of different lengths where `masked`: their tokens [32, n], the mask of the
        prompts [32, USER_TOKENS], HF's logits [32, 1 + USER_STEPS, vocabulary] after the prompt and each step, and how
        far HF in bfloat16 is from them at the worst."""
        import torch

        from bringup.checkpoints.compute_dtype import computing_in

        whole = USER_TOKENS + USER_STEPS
        ids = torch.tensor(self.ids * (1 + (USERS + whole) // len(self.ids)))
        ids = torch.stack([ids[user : user + whole] for user in range(USERS)])
        mask = torch.ones(USERS, USER_TOKENS, dtype=torch.int64)
        for user in range(USERS) if masked else ():
            mask[user, : user % (USER_TOKENS - 2)] = 0  # padding on the left; 7 divides no power of two
        seen = torch.cat([mask, torch.ones(USERS, USER_STEPS, dtype=torch.int64)], dim=1)
        kept = {"logits_to_keep": 1 + USER_STEPS, "use_cache": False}
        positions = (seen.cumsum(1) - 1).clamp(min=0)

        def logits(dtype):
            with computing_in(self.hf, dtype), torch.inference_mode():
                return self.hf(ids, attention_mask=seen, position_ids=positions, **kept).logits.float()

        narrow = logits(torch.bfloat16)
        try:
            wide = logits(torch.float32)
        except BadInput:
            return ids, mask, narrow, 2 * ASSUMED_BF16
        return ids, mask, wide, float(distances(wide, narrow).max())

    def after(self, positions):
        """HF's logits after each of these many tokens."""
        return self.logits[[self.positions.index(p) for p in positions]]


def distances(expected, actual):
    """Relative L2 distance of each row; of one that is next to nothing (a padding token alone) by what others are."""
    sizes = expected.double().norm(dim=-1)
    least = (LEAST * sizes.mean()).clamp(min=1e-30)
    return (actual.double() - expected.double()).norm(dim=-1) / sizes.clamp(min=least)


class Probe:
    """A model, a text, and what was measured so far. Each method named in CHECKS asks one question."""

    def __init__(self, model, text, max_seq_len, *, values=True, deterministic=False):
        self.model, self.text, self.max_seq_len = model, text, max_seq_len
        self.values, self.deterministic = values, deterministic
        self.decoded = None  # logits of the token-by-token run

    # what is fair

    def judge(self, name, positions, logits, other=None):
        """Logits [n, vocabulary] after `positions` tokens each, against HF; and against `other` ways to them."""
        import torch

        if not self.values:
            return ConsistencyResult(name, None, "the calls were accepted; there are no values to compare")
        positions = list(positions)
        want = self.text.after(positions)
        error = distances(want, logits)
        whole, median = rel_l2(want, logits), float(error.median())
        each = max(OF_MEDIAN * median, OF_WORST_BF16 * self.text.bf16_worst)
        figures = {
            "positions": positions,
            "rel_l2": whole,
            "rel_l2_each": [round(float(e), 6) for e in error],
            "bf16": self.text.bf16,
            "bound_whole": OF_BF16 * self.text.bf16,
            "bound_each": min(each, OF_BF16 * max(self.text.bf16, self.text.bf16_worst)),
        }
        wrong = []
        if not math.isfinite(whole) or whole > figures["bound_whole"]:
            wrong.append(f"{whole / self.text.bf16:.1f} times HF's own bfloat16 error; {OF_BF16:.0f} are explained")
        far = [p for p, e in zip(positions, error.tolist(), strict=True) if not e <= figures["bound_each"]]
        if far:
            wrong.append(f"far off at {_some(far)} tokens")
            figures["instead"] = self._instead(far, logits[[positions.index(p) for p in far]], figures["bound_each"])
        flips = self._flips(want, logits, positions, figures["bound_each"])
        if flips:
            wrong.append(f"another prediction than HF, which is not close, at {_some(flips)} tokens")
        if other is not None:
            apart = distances(other, logits)
            figures["rel_l2_between"] = float(apart.max())
            apart = [p for p, e in zip(positions, apart.tolist(), strict=True) if not e <= figures["bound_each"]]
            if apart:
                wrong.append(f"the two ways differ at {_some(apart)} tokens")
        figures["same_prediction"] = int(torch.eq(want.argmax(-1), logits.argmax(-1)).sum())
        found = (
            f"relative L2 {whole:.4f} (HF in bfloat16 {self.text.bf16:.4f}), worst position {float(error.max()):.4f}"
        )
        if other is not None:
            found += f", between the two ways at most {figures['rel_l2_between']:.4f}"
        found += f"; same prediction at {figures['same_prediction']} of {len(positions)}"
        return ConsistencyResult(name, not wrong, "; ".join([*wrong, found]), figures)

    def _instead(self, far, logits, bound):
        """After how many tokens HF has these logits, where it has all of them somewhere: {tokens: tokens}."""
        from bringup.evaluation.layers.suspects.reading import nearest_rows

        index, apart = nearest_rows(logits, self.text.logits)
        return (
            dict(zip(far, (self.text.positions[i] for i in index), strict=True)) if float(apart.max()) < bound else {}
        )

    def _flips(self, want, logits, positions, explained):
        """Positions with another argmax where HF's lead is more than UNDECIDED times what is explained of a logit."""
        best = want.topk(2).values
        lead = best[:, 0] - best[:, 1]
        noise = explained * want.square().mean(-1).sqrt()
        wrong = (want.argmax(-1) != logits.argmax(-1)) & (lead > UNDECIDED * noise)
        return [p for p, w in zip(positions, wrong.tolist(), strict=True) if w]

    # ways to logits

    def prefilled(self, positions):
        """The last logits of a prompt of each of these lengths."""
        import torch

        return torch.cat([Session(self.model)(self.text.ids[:n]) for n in positions])

    def token_by_token(self):
        """Logits of the text run one token at a time, as far as the sweep goes."""
        import torch

        if self.decoded is None:
            session = Session(self.model)
            self.decoded = torch.cat([session([i]) for i in self.text.ids[: self._fitting(BOUNDARIES)[-1]]])
        return self.decoded

    def _fitting(self, positions):
        return [p for p in positions if p <= self.max_seq_len]

    # the questions

    def decode(self):
        """The text token by token, through 32, 64 and 128."""
        logits = self.token_by_token()
        return self.judge("decode, token by token", range(1, len(logits) + 1), logits)

    def prefill_against_decode(self):
        """The same positions as one prompt and token by token."""
        positions = self._fitting(BOUNDARIES)
        logits, decoded = self.prefilled(positions), self.token_by_token()
        return self.judge("prefill against decode", positions, logits, decoded[[p - 1 for p in positions]])

    def prompt_lengths(self):
        """A prompt of each length and the step after it."""
        import torch

        positions, found = [], []
        for n in self._fitting(n + 1 for n in LENGTHS):
            session = Session(self.model)
            found += [session(self.text.ids[: n - 1]), session([self.text.ids[n - 1]])]
            positions += [n - 1, n]
        return self.judge("prompt lengths " + ", ".join(map(str, LENGTHS)), positions, torch.cat(found))

    def cache_end(self):
        """A prompt that nearly fills the cache, and steps to its last position."""
        import torch

        end, steps = self.max_seq_len, min(3, self.max_seq_len - 1)
        session = Session(self.model)
        found = [session(self.text.ids[: end - steps])]
        found += [session([self.text.ids[p]]) for p in range(end - steps, end)]
        return self.judge(f"the end of the cache ({end})", range(end - steps, end + 1), torch.cat(found))

    def second_prompt(self):
        """A short prompt and two steps, a long prompt, the short one again: nothing of the long one is left."""
        import torch

        short, long = 33 if self.max_seq_len > 35 else 1, self.max_seq_len - 1

        def run():
            session = Session(self.model)
            return torch.cat(
                [session(self.text.ids[:short])] + [session([i]) for i in self.text.ids[short : short + 2]]
            )

        first = run()
        session = Session(self.model)
        session(self.text.ids[:long])
        session([self.text.ids[long]])
        again = run()
        result = self.judge("a second prompt", range(short, short + 3), again, first)
        return self._same_bits(result, first, again, "after a longer prompt the same prompt gives other logits")

    def same_seed(self):
        """Sampling twice with the same seed."""
        import torch

        prompt = torch.tensor([self.text.ids[:33]])

        def run():
            torch.manual_seed(7)
            return self._generate(prompt, do_sample=True)[0].tolist()

        first, again = run(), run()
        if not self.values:
            return ConsistencyResult("the same seed twice", None, "the calls were accepted; there are no values")
        n = next((i for i, (a, b) in enumerate(zip(first, again, strict=True)) if a != b), None)
        detail = f"{len(first)} sampled tokens are the same" if n is None else f"they differ from token {n} on"
        return ConsistencyResult("the same seed twice", n is None, detail, {"first_difference": n})

    def _tried(self, what, run):
        """(what `run` gives, None), or (None, why there is nothing to compare): a file need not take `what`."""
        try:
            found = run()
        except BringupError:
            raise
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None, f"the file takes no {what}: {type(error).__name__}: {first}"
        return found, None if self.values else "the calls were accepted; there are no values to compare"

    def batch(self):
        """Users with prompts of different lengths in one batch, padded on the left as generate() wants it."""
        import torch

        lengths = [n for n in (5, 33, 20) if n + 4 <= self.max_seq_len]
        prompts = [self.text.ids[i : i + n] for i, n in enumerate(lengths)]
        name, steps = f"a batch of {len(lengths)} against each alone", 3
        alone = [self._steps(torch.tensor([p]), None, steps) for p in prompts]
        wide = max(lengths)
        if not mask_for(self.model, None):
            return ConsistencyResult(name, None, "the file takes no attention_mask, so no prompts of different lengths")
        ids = torch.tensor([[0] * (wide - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (wide - len(p)) + [1] * len(p) for p in prompts])
        out, why_not = self._tried("batch", lambda: self._steps(ids, mask, steps))
        if why_not:
            return ConsistencyResult(name, None, why_not)
        tokens, logits = out
        worst, wrong, users = 0.0, [], []
        for user, (own_tokens, own) in enumerate(alone):
            for step in range(steps):
                distance = rel_l2(own[0, step], logits[user, step])
                worst = max(worst, distance)
                if not distance <= OF_WORST_BF16 * self.text.bf16_worst:
                    wrong.append(f"user {user} (prompt of {lengths[user]}) differs at step {step}: {distance:.4f}")
                    users.append(user)
                    break
                if tokens[user][step] != own_tokens[0][step]:
                    break  # undecided, and free to go on differently
        detail = "; ".join([*wrong, f"prompts of {lengths}: logits at most {worst:.4f} apart"])
        return ConsistencyResult(
            name, not wrong, detail, {"lengths": lengths, "rel_l2": worst, "users": users, "of": len(lengths)}
        )

    def users(self):
        """32 users at once, each with its own text: none has what another should have."""
        import torch

        name, room = f"{USERS} users at once", USER_TOKENS + USER_STEPS
        if self.max_seq_len < room or self.text.hf is None:
            return ConsistencyResult(name, None, f"a cache of {self.max_seq_len} positions has no room for {room}")
        masked = bool(mask_for(self.model, None))
        ids, mask, want, bf16 = self.text.crowd(masked)
        given = {"attention_mask": mask} if masked else {}

        @torch.inference_mode()
        def run():
            out = self.model(input_ids=ids[:, :USER_TOKENS], past_key_values=None, **given)
            found = [out.logits[:, -1]]
            for step in range(USER_STEPS):
                at = USER_TOKENS + step
                if masked:
                    given["attention_mask"] = torch.cat([mask, torch.ones(USERS, step + 1, dtype=mask.dtype)], 1)
                out = self.model(input_ids=ids[:, at : at + 1], past_key_values=out.past_key_values, **given)
                found.append(out.logits[:, -1])
            return torch.stack(found, 1).float()

        got, why_not = self._tried(f"{USERS} users", run)
        if why_not:
            return ConsistencyResult(name, None, why_not)
        bound = OF_BF16 * max(bf16, self.text.bf16_worst)
        apart = distances(want.flatten(0, 1), got.flatten(0, 1)).unflatten(0, want.shape[:2])
        bad = ~(apart <= bound)
        figures = {"rel_l2": float(apart.max()), "bf16": bf16, "bound_each": bound}
        detail = f"at most {float(apart.max()):.4f} from HF (HF in bfloat16 {bf16:.4f})"
        if bool(bad.any()):
            who = bad.any(1).nonzero().flatten().tolist()
            step = int(bad.any(0).nonzero()[0])
            figures |= {"users": who, "step": step}
            when = "already after its prompt" if step == 0 else f"from decode step {step} on"
            from bringup.evaluation.lines import ranges

            all_of = f"all {USERS} users differ" if len(who) == USERS else f"{ranges(who, 'user')} of {USERS} differ"
            detail = f"{all_of} from HF {when}; {detail}, {bound:.4f} are explained"
        return ConsistencyResult(name, not bool(bad.any()), detail, figures)

    def _steps(self, ids, mask, steps):
        """Greedy tokens and logits [users, steps, vocabulary] through HF's generate()."""
        import torch

        mask = torch.ones_like(ids) if mask is None else mask
        out = self._generate(ids, mask, max_new_tokens=steps, output_logits=True, return_dict_in_generate=True)
        return out.sequences[:, ids.shape[1] :].tolist(), torch.stack([x.float() for x in out.logits], 1)

    def _generate(self, ids, mask=None, max_new_tokens=8, do_sample=False, **kwargs):
        import torch

        with torch.inference_mode():
            return self.model.generate(
                ids,
                **mask_for(self.model, torch.ones_like(ids) if mask is None else mask),
                max_new_tokens=max_new_tokens,
                min_new_tokens=max_new_tokens,
                do_sample=do_sample,
                pad_token_id=0,
                **kwargs,
            )

    def _same_bits(self, result, first, again, problem):
        """On a device that computes the same every time, the same logits to the last bit."""
        import torch

        if self.values:
            result.figures["same_bits"] = torch.equal(first, again)
            if self.deterministic and not result.figures["same_bits"]:
                result.ok, result.detail = False, f"{problem}; {result.detail}"
        return result


CHECKS = {
    "decode": Probe.decode,
    "cache_end": Probe.cache_end,
    "prefill_against_decode": Probe.prefill_against_decode,
    "prompt_lengths": Probe.prompt_lengths,
    "second_prompt": Probe.second_prompt,
    "batch": Probe.batch,
    "users": Probe.users,
    "same_seed": Probe.same_seed,
}


def run(model, hf_model, ids, max_seq_len, *, names=tuple(CHECKS), values=True, deterministic=False):
    """Ask a model the questions `names` about the text `ids` (repeated until it fills the cache)."""
    probe = Probe(
        model, Text.through(hf_model, ids, max_seq_len), max_seq_len, values=values, deterministic=deterministic
    )
    return [CHECKS[name](probe) for name in names]


def mask_for(model, mask):
    """generate()'s argument for an attention mask; nothing where forward has no use for it, or HF would refuse it."""
    prepare = inspect.signature(model.prepare_inputs_for_generation).parameters
    passed_on = "attention_mask" in prepare or any(p.kind is p.VAR_KEYWORD for p in prepare.values())
    used = "attention_mask" in inspect.signature(model.forward).parameters
    return {"attention_mask": mask} if passed_on and used else {}


def _some(positions):
    shown = ", ".join(map(str, positions[:6]))
    return shown + (f" and {len(positions) - 6} more" if len(positions) > 6 else "")
