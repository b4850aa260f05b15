"""lm-evaluation-harness drives a model of ours, HF's or the device's: its tasks, its prompts, its metrics.

Importing this needs `lm_eval` (the extra `tasks`).
"""

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs

from bringup.checkpoints import session
from bringup.console import progress
from bringup.errors import BadInput

GENERATED = 256  # tokens where a task does not say


class Backend(TemplateLM):
    """Any causal model that `Session` can drive, as lm_eval's three methods; one sequence at a time, greedy.

    `max_length` bounds the context and what follows it: longer contexts lose their begin, as in lm_eval's own HF model.
    `title` stands before the progress of its answers.
    """

    def __init__(self, model, tokenizer, max_length, title="tasks"):
        super().__init__()
        self.model, self.tokenizer, self.max_length, self.title = model, tokenizer, max_length, title
        self.cut = 0  # requests that lost the begin of their context
        self._last = None

    @property
    def eot_token_id(self):
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self):
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self):
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.bos_token):  # of a chat template
            add_special_tokens = False
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer(string, **how)["input_ids"])

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def loglikelihood(self, requests, disable_tqdm=True):
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
        return self._answers("loglikelihood", requests, lambda r: r[0], lambda r: self._score(*r[1:]))

    def _answers(self, method, requests, key, answer):
        """The answer to each request, kept as they come in the cache that an interrupted run goes on from."""
        found = []
        with progress(f"{self.title}, answers", len(requests)) as advance:
            for request in requests:
                found.append(answer(request))
                self.cache_hook.add_partial(method, key(request), found[-1])
                advance()
        return found

    def _score(self, context, continuation):
        """(log-likelihood of the continuation, is it what greedy decoding gives)."""
        if len(continuation) > self.max_length:
            raise BadInput("a continuation is longer than the cache", got=len(continuation), want=self.max_length)
        ids = [*context, *continuation][-(self.max_length + 1) :]
        self.cut += len(ids) < len(context) + len(continuation)
        n = len(continuation)
        fed = (tuple(ids[:-1]), n)
        if self._last is None or self._last[0] != fed:  # answers of one token each share a pass
            logits = session.one_pass(self.model, ids[:-n], ids[-n:])
            self._last = fed, logits.float().cpu().log_softmax(-1)
        rows = self._last[1]
        best = rows.argmax(-1).tolist()
        return sum(float(row[token]) for row, token in zip(rows, continuation, strict=True)), best == list(continuation)

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return self._answers("loglikelihood_rolling", requests, lambda r: r.args, lambda r: self._roll(*r.args))

    def _roll(self, text):
        """The log-likelihood of a whole text, in windows of `max_length` that do not overlap."""
        windows = utils.get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return sum(self._score(*utils.make_disjoint_window(window))[0] for window in windows)

    def generate_until(self, requests, disable_tqdm=False):
        return self._answers("generate_until", requests, lambda r: r.args, lambda r: self._answer(*r.args))

    def _answer(self, context, asked):
        asked = normalize_gen_kwargs(asked, GENERATED)
        if asked.get("do_sample"):
            raise BadInput("the task samples its answers", got=f"{asked}", want="a task that is greedy")
        return self._generate(context, handle_stop_sequences(asked.get("until"), None), asked["max_gen_toks"])

    def _generate(self, context, until, most):
        """The greedy text after the context, up to a text of `until`, the end token, or `most` tokens."""
        most = min(most, self.max_length - 1)
        ids = self.tok_encode(context)
        self.cut += len(ids) + most > self.max_length
        run, tokens, text = session.Session(self.model), [], ""
        logits = run(ids[-(self.max_length - most) :])
        while len(tokens) < most:
            tokens.append(int(logits[0].argmax()))
            if tokens[-1] == self.eot_token_id:
                break
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            if any(stop and stop in text for stop in until):
                break
            if len(tokens) < most:
                logits = run(tokens[-1:])
        for stop in until:
            text = text.split(stop)[0] if stop else text
        return text


def find(names, include=None):
    """lm_eval's task manager that knows all `names`: of a folder of task files, then of those that come with it."""
    from lm_eval.tasks import TaskManager

    managers = [lambda: TaskManager(include_path=include)]
    if include is not None:
        managers.insert(0, lambda: TaskManager(include_path=include, include_defaults=False))  # in no time
    for make in managers:
        manager = make()
        unknown = [name for name in names if name not in manager.all_tasks]
        if not unknown:
            return manager
    where = f" or {include}" if include else ""
    raise BadInput("no such task", got=", ".join(unknown), want=f"a task of lm_eval{where}", hint="lm-eval ls tasks")


def evaluate(backend, manager, task, *, limit=None, few_shot=None, chat=False, seed=0, cache=None):
    """A task (or group) as plain data: {task: {"n", "metrics": {name: [value, standard error]}, "documents"}}.

    A document's record has its values by metric, so that two models can be compared document by document. `cache` is
    where lm_eval keeps answers that an interrupted run has had.
    """
    from lm_eval import simple_evaluate

    try:
        results = simple_evaluate(
            model=backend,
            tasks=[task],
            task_manager=manager,
            limit=limit,
            num_fewshot=few_shot,
            apply_chat_template=chat,
            use_cache=cache,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            bootstrap_iters=1000,
        )
    except (OSError, ValueError, KeyError, ConnectionError, ImportError) as error:  # its data is not here, or is broken
        said = " ".join(str(error).split())[:400]
        raise BadInput(
            f"lm_eval cannot run {task}",
            got=f"{type(error).__name__}: {said}",
            hint="without a network the task's data has to be here: local task files with --include DIR, or HF_HOME",
        ) from error
    found = {}
    for name, samples in results["samples"].items():
        own = results["results"][name]
        metrics = {}
        for key, value in own.items():
            metric, _, filtered = key.partition(",")
            if filtered and not metric.endswith("_stderr") and isinstance(value, (int, float)):
                error = own.get(f"{metric}_stderr,{filtered}")
                metrics[key] = [float(value), float(error) if isinstance(error, (int, float)) else None]
        documents = [
            {"id": s["doc_id"], "filter": s["filter"], **{m: s[m] for m in s["metrics"] if _is_number(s.get(m))}}
            for s in samples
        ]
        n = len({d["id"] for d in documents})
        found[name] = {"n": n, "version": results["versions"].get(name), "metrics": metrics, "documents": documents}
    return found


def _is_number(value):
    return isinstance(value, (int, float))  # booleans too
