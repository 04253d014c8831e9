"""What the service answers and takes, by the names of its OpenAPI document.

Made from the OpenAPI document by `make docs`; changes belong into publisher/api.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict  # that of 3.11 pydantic cannot check

AttemptOutcome: TypeAlias = Literal["succeeded", "failed", "cancelled", "paused", "released", "waiting"]
Criterion: TypeAlias = Literal["taylor", "sparsegpt", "wanda", "magnitude", "random"]
DeliveryState: TypeAlias = Literal["pending", "delivered", "failed"]
EventKind: TypeAlias = Literal["state", "stage", "progress", "metric", "log"]
Exhausted: TypeAlias = Literal["refuse", "repeat", "stop"]
JobState: TypeAlias = Literal[
    "queued",
    "running",
    "pausing",
    "paused",
    "cancelling",
    "cancelled",
    "succeeded",
    "failed",
]
Layout: TypeAlias = Literal["per_layer", "uniform"]
Machine: TypeAlias = Literal["gpu", "cpu"]
Objective: TypeAlias = Literal["distillation", "language_model"]
Optimizer: TypeAlias = Literal[
    "adamw",
    "adamw_8bit",
    "galore_adamw",
    "galore_adamw_8bit",
    "apollo_adamw",
    "muon",
    "adafactor",
    "gradnormlorp",
    "lotus",
]
Pattern: TypeAlias = Literal["2:4", "4:8"]
PruningMethod: TypeAlias = Literal["structured", "semi_structured", "unstructured"]
Scheme: TypeAlias = Literal["none", "nf4"]
Stop: TypeAlias = Literal["end", "held_out", "probe"]
Storage: TypeAlias = Literal["dense", "compressed"]
SubjectKind: TypeAlias = Literal["key", "session", "job", "operator", "nobody"]
Trainable: TypeAlias = Literal["all", "low_rank"]
Verdict: TypeAlias = Literal["passed", "not_significant", "negligible", "inconclusive", "failed", "not_stated"]
WaitKind: TypeAlias = Literal["hub", "credential", "worker", "disk", "quota"]
WorkerState: TypeAlias = Literal["idle", "busy", "away"]


class Alignment(TypedDict):
    #: text, mixed by weight; held-out documents stay out
    corpora: list[WeightedCorpus]
    #: tokens trained on in total; 0: layers are only reconstructed
    tokens: NotRequired[int]
    #: tokens per packed sequence
    sequence_length: NotRequired[int]
    #: tokens per optimizer step
    batch_tokens: NotRequired[int]
    #: structured pruning: before training, layers' matrices are solved anew by least squares on so much text (the
    #: last of `tokens`; with tokens 0 all of it), so that layers put out what the base model's do; 0: not
    reconstruction_tokens: NotRequired[int]
    #: peak, after warm-up
    learning_rate: NotRequired[float]
    #: share of the steps; cosine after it
    warmup_fraction: NotRequired[float]
    #: adamw: the paper's, by torch; adamw_8bit: with moments in 8 bits, by bitsandbytes; galore_adamw: matrices in a
    #: subspace of their gradients, by its authors' galore-torch; galore_adamw_8bit: galore_adamw's projections around
    #: adamw_8bit; apollo_adamw: matrices' gradients scaled by channel as Adam on a random projection would (APOLLO);
    #: muon: matrices by orthogonal momentum, by torch; adafactor: second moments as a row and a column, by torch; its
    #: rate is relative to each tensor's root mean square, as in its paper: 10 to 100 times adamw's; gradnormlorp:
    #: matrices' rows as lengths and directions, whose gradients are projected on both sides; lotus: matrices in a
    #: subspace that is left when the gradient stops moving in it
    optimizer: NotRequired[Optimizer]
    #: What alignment minimises: KL to the base model's logits, or next-token cross-entropy (the paper's).
    objective: NotRequired[Objective]
    #: distillation: both models' logits divided by it
    temperature: NotRequired[float]
    #: distillation: share of next-token cross-entropy in the loss
    language_model_share: NotRequired[float]
    #: distillation: weight of the distance of eight layers' hidden states
    hidden_states_weight: NotRequired[float]
    #: distillation, structured pruning: weight of 1 - cosine between the model's gradients by its weights and the
    #: base model's, mean over matrices; null: 1 where all weights train on one device, without teacher_top_k, of a
    #: model without experts
    gradient_matching: NotRequired[float | None]
    #: with gradient_matching: both models wear an adapter that is trained meanwhile, a new one every so many steps,
    #: so that gradients are matched on an adapter's way and not at its start alone; 0: without
    practice_steps: NotRequired[int]
    #: distillation: only the base model's k likeliest tokens and the rest as one, kept on disk and shared by all
    #: recipes with the same text; null: the whole vocabulary, computed anew
    teacher_top_k: NotRequired[int | None]
    #: `all` weights but the LM head, as in the paper; or LoRA beside them, merged when alignment ends.
    trainable: NotRequired[Trainable]
    #: of LoRA with trainable low_rank, of gradients with such an optimizer
    rank: NotRequired[int]
    #: reconstruction and the loss see weights as they will be in 4 bits, and reconstruction rounds by GPTQ; null:
    #: with scheme nf4, the loss where all weights train on one device
    quantization_aware: NotRequired[bool | None]
    #: compute layers again in backward: a third more work, much less memory for long text
    activation_checkpointing: NotRequired[bool]
    #: torch.compile layers: a minute's wait for faster steps; a CPU needs a C++ compiler
    compile: NotRequired[bool]
    #: What happens when a corpus holds less text than its share of the tokens.
    exhausted: NotRequired[Exhausted]
    #: Which weights alignment ends with: the last; the best on held-out text; those whose probe helps most.
    stop: NotRequired[Stop]
    #: stop held_out or probe: how often the weights are looked at
    checks: NotRequired[int]
    #: stop held_out: checks without a better one to end at
    patience: NotRequired[int]


class ApiKeyAnswer(TypedDict):
    #: names the key; not the key itself
    id: str
    #: to tell keys apart
    name: str
    #: the key's first characters
    prefix: str
    #: seconds since 1970
    created_at: float
    #: seconds since 1970; null while the key works
    revoked_at: float | None
    #: seconds since 1970; null: until it is revoked
    expires_at: float | None
    #: seconds since 1970, a minute old at most while it is in use; null: not since this was noted
    last_used_at: float | None
    #: what it may do, with what its scopes include
    scopes: list[str]
    #: the key that made it; null: the service's operator
    created_by: str | None


class ApiKeyRequest(TypedDict):
    #: to tell keys apart, one line
    name: str
    #: what it may do; null: what the key may that makes it
    scopes: NotRequired[list[str] | None]
    #: seconds since 1970, ahead of now; null: with the key that makes it, or when it is revoked
    expires_at: NotRequired[float | None]


class AttemptAnswer(TypedDict):
    """A job in one worker's hands. Times are seconds since 1970; `stages` maps a stage to its state and seconds."""

    #: counts from 1 over all retries
    number: int
    #: the try that it counts as; waiting, a pause and a worker's shutdown cost none
    attempt: int
    #: who had it
    worker: str
    #: seconds since 1970
    started_at: float
    #: seconds since 1970; null while it runs
    finished_at: float | None
    #: null while it runs
    outcome: AttemptOutcome | None
    #: why it failed; null unless it did
    failure: FailureAnswer | None
    #: what it came to wait for
    waiting: WaitingAnswer | None
    #: stage → its state; seconds and peak_memory in bytes, or `at`, since when it runs
    stages: Mapping[str, Any]
    #: number of its first event
    first_event: int
    #: number of its last event so far
    last_event: int


class AuditAnswer(TypedDict):
    #: names the entry; ids sort by age
    id: str
    #: seconds since 1970
    at: float
    #: what acted: a key, a session of the dashboard, a job, the service's operator, or a request that nobody signed
    actor: SubjectKind
    #: which key, session (the first digits of its id) or job
    actor_id: str | None
    #: the key that it stood on; null for jobs and the operator
    key_id: str | None
    #: X-Request-Id of the answer; null where no request did it
    request_id: str | None
    #: the client's, as the service or its proxy saw it
    address: str | None
    #: what was done, as in job.cancel
    action: str
    #: to what: an id, or a repository of the embedded Hub
    resource: str
    #: what it belongs to, or what it made: a job's variant, a variant's job
    related: str | None
    #: the change's essentials
    details: Mapping[str, Any]


class BaseModelAnswer(TypedDict):
    """`revision` is a commit, or the digest of a folder's files; `bytes` is the size of the weight files."""

    #: names the base model in other calls
    id: str
    #: repository on the Hub, or the folder's path
    repo_id: str
    #: commit; of a folder the digest of its files
    revision: str
    #: folder; null for a repository
    path: str | None
    #: name under which others get a folder's model
    published_as: NotRequired[str | None]
    #: sizes of the model
    geometry: GeometryAnswer
    #: how many numbers the model has
    parameters: int
    #: size of the weight files
    bytes: int
    #: of most weights
    dtype: str
    #: bytes of each file
    files: Mapping[str, int]
    #: what is read otherwise than the files say: tensors left out, an LM head that is not tied
    notes: NotRequired[list[str]]
    #: to find it by
    labels: Mapping[str, str]
    #: seconds since 1970
    created_at: float


class BaseModelRequest(TypedDict):
    """Either a Hub repository, pinned to the commit that `revision` points to now, or a folder of this service."""

    #: repository on the Hub
    repo_id: NotRequired[str | None]
    #: branch, tag or commit
    revision: NotRequired[str | None]
    #: folder below an allowed root
    path: NotRequired[str | None]
    #: with path: namespace/name under which others get this model; what is published calls it so
    published_as: NotRequired[str | None]
    #: words of your own to find it by: keys and values as Kubernetes has them
    labels: NotRequired[Mapping[str, str]]


class Bytes(TypedDict):
    #: base model's weight files
    base: int
    #: pruned weights before quantization, zeros written out
    pruned: int
    #: weights as published, with masks of weights: what a downstream user downloads
    checkpoint: int


class Calibration(TypedDict):
    """Text on which importance is measured: `samples` sequences of `sequence_length` tokens."""

    #: the one corpus that is read; or name `corpora`
    corpus: NotRequired[str | None]
    #: several corpora, which share the sequences by weight
    corpora: NotRequired[list[WeightedCorpus]]
    #: sequences
    samples: NotRequired[int]
    #: tokens per sequence
    sequence_length: NotRequired[int]


class CertificateAnswer(TypedDict):
    """What the certificate says; all of it is in the manifest."""

    #: passed, or why not; not_stated by publishers that did not measure documents
    verdict: Verdict
    #: whose held-out documents were measured
    corpus: str
    #: held-out documents that were measured
    documents: int | None
    #: gain of the recovered adapter on the base model, nats per token
    mean: float | None
    #: of `mean`, over documents
    standard_error: float | None


class CorpusAnswer(TypedDict):
    #: names the corpus in other calls
    id: str
    #: what recipes call it
    name: str
    #: null for a dataset
    path: str | None
    #: null for files, as are the next four
    dataset: NotRequired[str | None]
    #: the dataset's configuration
    config: NotRequired[str | None]
    #: of the dataset
    split: NotRequired[str | None]
    #: commit
    revision: NotRequired[str | None]
    #: rows read from the dataset's beginning, at most
    documents: NotRequired[int | None]
    #: column that holds the text
    text_field: str
    #: share of the documents that is only used for evaluation
    held_out_fraction: float
    #: null for a dataset: jobs read it, registering does not
    facts: CorpusFacts | None
    #: to find it by
    labels: Mapping[str, str]
    #: seconds since 1970
    created_at: float


class CorpusFacts(TypedDict):
    """Counted by reading every document. Bytes are of the text in UTF-8."""

    #: texts in all
    documents: int
    #: of all texts
    characters: int
    #: texts that may be trained on
    train_documents: int
    #: of these
    train_bytes: int
    #: texts that are only used for evaluation
    held_out_documents: int
    #: of these
    held_out_bytes: int
    #: true: its only text was cut in pieces, which the other fields count: the beginning is trained on, the end held
    #: out
    is_one_document: NotRequired[bool]
    #: sha256 over the files and the way they are read
    content_digest: str


class CorpusRequest(TypedDict):
    """JSONL (.jsonl, .jsonl.gz), Parquet or text (.txt) files, one or a folder of them; or a dataset of the Hub."""

    #: what recipes call it
    name: str
    #: file or folder below an allowed root
    path: NotRequired[str | None]
    #: owner/name on the Hub
    dataset: NotRequired[str | None]
    #: the dataset's configuration
    config: NotRequired[str | None]
    #: of the dataset; it is split again
    split: NotRequired[str]
    #: branch, tag or commit; pinned to its commit now
    revision: NotRequired[str | None]
    #: rows read from the dataset's beginning, at most
    documents: NotRequired[int]
    #: column that holds the text
    text_field: NotRequired[str]
    #: share of the documents that is only ever used for evaluation
    held_out_fraction: NotRequired[float]
    #: words of your own to find it by: keys and values as Kubernetes has them
    labels: NotRequired[Mapping[str, str]]


class Counts(TypedDict):
    """Of masks of weights the kept weights count."""

    #: of the base model
    base: int
    #: of the pruned one
    pruned: int


class DeliveryAnswer(TypedDict):
    """One event on its way to one webhook. Times are seconds since 1970."""

    #: names the delivery
    id: str
    #: the message's webhook-id, the same at every try
    event_id: str
    #: of the event
    type: str
    #: what is told of it
    data: Mapping[str, Any]
    #: seconds since 1970: when it happened
    at: float
    #: failed: given up
    state: DeliveryState
    #: tries so far, since somebody asked last
    attempts: int
    #: seconds since 1970; null: there is none
    next_attempt_at: float | None
    #: seconds since 1970
    last_attempt_at: float | None
    #: seconds since 1970
    delivered_at: float | None
    #: of the last answer; null: there was none
    status: int | None
    #: why the last try failed
    error: str | None
    #: that the last try took
    seconds: float | None


class Evaluation(TypedDict):
    """Perplexity on the held-out documents of `corpora`; the probe trains on the first one's other documents."""

    #: measured on their held-out documents
    corpora: list[str]
    #: train a LoRA, recover it and measure it: the certificate
    probe: NotRequired[bool]
    #: held-out tokens per corpus, at most
    tokens: NotRequired[int]
    #: tokens per window
    sequence_length: NotRequired[int]
    #: tokens between the starts of windows; null: sequence_length, no overlap
    stride: NotRequired[int | None]
    #: The fixed LoRA training of the certificate.
    probe_budget: NotRequired[ProbeBudget]
    #: train the probe's LoRA on the base model as well, where it fits: the upper bound
    direct: NotRequired[bool]
    #: with the probe: how like the base model's the checkpoint's LoRA gradients are
    gradient_fidelity: NotRequired[bool]
    #: true: publish only if the certificate passes, that is, over at least eight held-out documents the probe lowers
    #: the base model's loss by more than two standard errors (and 0.001 nats per token). "unless_failed": also if
    #: that is inconclusive, not significant or negligible. false: whatever it says
    require_certificate: NotRequired[bool | Literal["unless_failed"]]
    #: lm-evaluation-harness tasks by name (extra lm-eval)
    tasks: NotRequired[list[str]]
    #: documents per task; null: all
    task_limit: NotRequired[int | None]


class FailureAnswer(TypedDict):
    """Whether the request or the infrastructure is to blame, in which stage, and what to do."""

    #: request: another try will not help; or infrastructure
    blame: str
    #: where it happened; null before the first
    stage: str | None
    #: what went wrong
    message: str
    #: what to do about it
    way_out: NotRequired[str | None]
    #: of an error that nobody foresaw: by it the worker's log tells more
    error_id: NotRequired[str | None]


class Families(TypedDict):
    """What the oracle found of every family, by name."""

    #: version of transformers that was asked
    transformers: str
    #: every one of them, by name
    families: list[Family]


class Family(TypedDict):
    """One of transformers' model types that has a causal language model."""

    #: model_type in config.json
    family: str
    #: the class that config.json names under architectures
    model_class: str
    #: whether models of it can be pruned
    supported: bool
    #: what structured pruning removes: kv_heads, neurons, experts
    units: list[str]
    #: units that always stay, and why
    whole: NotRequired[Mapping[str, str]]
    #: between the logits of the pruned model and of the base model with the same units switched off, in float64; null
    #: if it never came to that
    largest_difference: NotRequired[float | None]
    #: why the family is not supported
    reason: NotRequired[str | None]


class GeometryAnswer(TypedDict):
    """Sizes of the model; `experts` per layer are 0 where there are none."""

    #: model_type in config.json
    family: str
    #: width between layers
    hidden_size: int
    #: neurons of an MLP; 0 where there are only experts
    intermediate_size: int
    #: decoder layers
    layers: int
    #: of a layer's attention
    query_heads: int
    #: each serves query_heads / kv_heads query heads
    kv_heads: int
    #: numbers per head
    head_dim: int
    #: tokens that have an embedding
    vocab_size: int
    #: whether the LM head is the embeddings' matrix
    tied_embeddings: bool
    #: of a layer; 0 where there are none
    experts: NotRequired[int]
    #: how many of them a token goes through
    experts_per_token: NotRequired[int]


class Health(TypedDict):
    #: ok, always: a process that does not live does not answer
    status: str


class HubCredentialAnswer(TypedDict):
    #: the Hub's address
    endpoint: str
    #: the write token's last characters
    write_token_end: str
    #: the read token's; null: there is none
    read_token_end: str | None
    #: id of the API key that set them
    set_by: str
    #: seconds since 1970
    set_at: float
    #: when a job last published with it, seconds since 1970; null: none has
    used_at: float | None


class HubCredentialRequest(TypedDict):
    """Tokens are never answered."""

    #: the Hub's address, as for HF_ENDPOINT
    endpoint: str
    #: may write where variants are published
    write_token: str
    #: for gated base models and datasets of the service's Hub; null: the service's own
    read_token: NotRequired[str | None]


class JobAnswer(TypedDict):
    """Times are seconds since 1970. `stages` maps a stage to its state and seconds."""

    #: names the job in other calls
    id: str
    #: what it makes
    variant_id: str
    #: where it stands
    state: JobState
    #: the one that runs, or ran last
    stage: str | None
    #: stage → its state; seconds and peak_memory in bytes, or `at`, since when it runs
    stages: Mapping[str, Any]
    #: tries so far
    attempt: int
    #: who runs it, or ran it last
    worker: str | None
    #: why it failed; null unless it did
    failure: FailureAnswer | None
    #: what a job without a worker waits for besides its turn
    waiting: WaitingAnswer | None
    #: seconds since 1970: since when it waits for something, with pauses
    waiting_since: float | None
    #: a job without a worker is not taken before; 0 if at any time
    claimable_at: float
    #: higher is taken first, of equal the oldest
    priority: int
    #: cpu for a job that computes nothing, or the GiB that it needs, rounded up
    queue: str | None
    #: number of the last event
    event_seq: int
    #: its variant's
    labels: Mapping[str, str]
    #: seconds since 1970
    created_at: float
    #: seconds since 1970: its last start
    started_at: float | None
    #: seconds since 1970
    finished_at: float | None
    #: seconds since 1970
    cancel_requested_at: float | None
    #: seconds since 1970; null: it is not to pause
    pause_requested_at: float | None
    #: somebody asked for its end when it had published already
    cancel_came_too_late: bool


class JobDetail(TypedDict):
    """One job, with what takes a look at the others. Times are seconds since 1970."""

    #: names the job in other calls
    id: str
    #: what it makes
    variant_id: str
    #: where it stands
    state: JobState
    #: the one that runs, or ran last
    stage: str | None
    #: stage → its state; seconds and peak_memory in bytes, or `at`, since when it runs
    stages: Mapping[str, Any]
    #: tries so far
    attempt: int
    #: who runs it, or ran it last
    worker: str | None
    #: why it failed; null unless it did
    failure: FailureAnswer | None
    #: what a job without a worker waits for besides its turn
    waiting: WaitingAnswer | None
    #: seconds since 1970: since when it waits for something, with pauses
    waiting_since: float | None
    #: a job without a worker is not taken before; 0 if at any time
    claimable_at: float
    #: higher is taken first, of equal the oldest
    priority: int
    #: cpu for a job that computes nothing, or the GiB that it needs, rounded up
    queue: str | None
    #: number of the last event
    event_seq: int
    #: its variant's
    labels: Mapping[str, str]
    #: seconds since 1970
    created_at: float
    #: seconds since 1970: its last start
    started_at: float | None
    #: seconds since 1970
    finished_at: float | None
    #: seconds since 1970
    cancel_requested_at: float | None
    #: seconds since 1970; null: it is not to pause
    pause_requested_at: float | None
    #: what a worker has to hold; null: nobody knows, each tries
    needs: Needs | None
    #: 1: next of the jobs that the same workers are for; null if it is not queued
    queue_position: int | None
    #: why no worker that runs takes it: its place is that among those that wait for such a one; null if one does
    missing_worker: str | None
    #: null where nothing is known
    expected_start: float | None
    #: learnt from earlier jobs with this base model and recipe, or as planned, and of a running job by its own speed;
    #: null where neither is
    expected_end: float | None
    #: of a running job, which hardly ends sooner; null where nothing is known
    earliest_end: float | None
    #: of a running job, which hardly ends later; null where nothing is known
    latest_end: float | None
    #: somebody asked for its end when it had published already
    cancel_came_too_late: bool


class JobMetrics(TypedDict):
    """`series` maps a name (loss, learning_rate, tokens_per_second, perplexity, …) to points by rising step.

    Perplexity is also told by form of the model and corpus, as `perplexity/base/novel`. A longer series is
    thinned: its first and last point stay, and the lowest and highest of every stretch between.
    """

    #: name → points by rising step
    series: Mapping[str, list[MetricPoint]]
    #: names of the series that have more points than are here
    thinned: list[str]


class LabelChange(TypedDict):
    """Sets the labels that it names and takes away those that are null; the others stay."""

    #: the ones to set, and with null the ones to take away
    labels: Mapping[str, str | None]


class LayerWidths(TypedDict):
    """What one decoder layer holds: query heads, KV heads (each serves query_heads / kv_heads), neurons, experts.

    0 where a layer has nothing of the kind that could be removed: the neurons of experts, linear attention.
    """

    #: 0 where attention cannot be pruned
    query_heads: int
    #: each serves query_heads / kv_heads query heads
    kv_heads: int
    #: of the MLP; 0 where there are only experts
    neurons: int
    #: 0 where there are none
    experts: NotRequired[int]


class LogLine(TypedDict):
    """A line of a job's log."""

    #: number of its event
    seq: int
    #: seconds since 1970
    at: float
    #: null: of no stage, or written by an older version
    stage: str | None
    #: a sentence for people
    message: str


class MeAnswer(TypedDict):
    """Whose key was sent."""

    #: whose resources it sees
    tenant_id: str
    #: the tenant's namespace on the embedded Hub, too
    tenant_name: str
    #: names the key; not the key itself
    key_id: str
    #: to tell keys apart
    key_name: str
    #: what it may do, with what its scopes include
    scopes: list[str]
    #: seconds since 1970; null: until it is revoked
    expires_at: float | None


class Memory(TypedDict):
    """Bytes. LoRA: rank 8 on every projection, one sequence of 512 tokens, activation checkpointing, AdamW."""

    #: to train LoRA on the checkpoint, in bytes
    train_lora: int
    #: the same on the base model in bf16
    train_lora_on_base: int
    #: on one GPU: `align_states`, the base model as teacher, activations
    align: int | None
    #: fp32 weights and gradients, the optimizer's states, bf16 copies that GPUs multiply with
    align_states: int | None


class MetricPoint(TypedDict):
    #: rises within a series
    step: int
    #: null where it was not a number
    value: float | None
    #: seconds since 1970
    at: float


class Needs(TypedDict):
    """`gpu_bytes` and `cpu_bytes` are the most over the `stages`; an estimate, see publisher.plan.capacity."""

    #: memory of one GPU that does all stages
    gpu_bytes: int
    #: memory of a machine that does all stages on its CPU
    cpu_bytes: int
    #: whether any stage computes: then it goes to a GPU if one that holds it is there
    gpu: bool
    #: of all that the stages write, if none is there already
    disk_bytes: int
    #: aligning on several devices together; null: this recipe cannot
    several: Several | None
    #: name of a stage → what it needs
    stages: Mapping[str, StageNeeds]


class NewApiKeyAnswer(TypedDict):
    #: names the key; not the key itself
    id: str
    #: to tell keys apart
    name: str
    #: the key's first characters
    prefix: str
    #: seconds since 1970
    created_at: float
    #: seconds since 1970; null while the key works
    revoked_at: float | None
    #: seconds since 1970; null: until it is revoked
    expires_at: float | None
    #: seconds since 1970, a minute old at most while it is in use; null: not since this was noted
    last_used_at: float | None
    #: what it may do, with what its scopes include
    scopes: list[str]
    #: the key that made it; null: the service's operator
    created_by: str | None
    #: the key itself; shown this once
    key: str


class NewWebhookAnswer(TypedDict):
    #: names the webhook in other calls
    id: str
    #: where events are sent
    url: str
    #: those that are sent; null: all
    events: list[str] | None
    #: to tell webhooks apart
    description: str
    #: false: nothing is sent, and nothing is kept to be sent later
    enabled: bool
    #: seconds since 1970; null: it is enabled
    disabled_at: float | None
    #: who or what disabled it
    disabled_reason: str | None
    #: seconds since 1970: nothing could be delivered since then
    failing_since: float | None
    #: seconds since 1970: the secret of before signs until then, too
    previous_secret_until: float | None
    #: seconds since 1970
    created_at: float
    #: whsec_…, for the receiver to check signatures with; shown this once
    secret: str


class PlanAnswer(TypedDict):
    #: how many numbers there are
    parameters: Counts
    #: base divided by pruned
    reduction: Reduction
    #: sizes of files
    bytes: Bytes
    #: bytes on a GPU
    memory: Memory
    #: GPUs of 80 GiB that hold the align stage
    align_gpus_80gib: int | None
    #: memory of a GPU in GiB → how many of these hold the align stage, sharing states and teacher; null: one
    #: sequence's activations are too much for one
    align_gpus: Mapping[str, int | None] | None
    #: what a worker has to hold: a job waits for one that does
    needs: Needs
    #: expected minutes per stage, from the workers' measured speed
    minutes: Mapping[str, float]
    #: of every layer; 0 is what cannot be removed or is not there
    base_widths: list[LayerWidths]
    #: of every layer when pruned
    widths: list[LayerWidths]
    #: what the numbers alone do not tell
    notes: list[str]
    #: null: a variant of this recipe would be accepted as things stand
    refused: Refusal | None
    #: those that are running now
    workers: list[PlannedWorker]
    #: what a job would wait for; null: a running worker takes it
    missing: str | None


class PlanRequest(TypedDict):
    #: a registered base model
    base_model_id: str
    #: what is planned
    recipe: Recipe


class PlannedWorker(TypedDict):
    """A worker that is running now."""

    #: as in GET /v1/workers
    id: str
    #: what it computes on
    kind: Machine
    #: memory of one device
    memory_bytes: int
    #: devices that align together
    devices: int
    #: whether a job of this plan fits, and its operator lets it be taken
    holds: bool
    #: whether it would get one: of those that hold it GPUs alone, if the job computes
    takes: bool


class ProbeBudget(TypedDict):
    """The fixed LoRA training of the certificate."""

    #: optimizer steps
    steps: NotRequired[int]
    #: sequences per step
    batch_size: NotRequired[int]
    #: tokens per sequence
    sequence_length: NotRequired[int]
    #: of the LoRA
    rank: NotRequired[int]
    #: peak
    learning_rate: NotRequired[float]


class Pruning(TypedDict):
    #: What goes: whole heads, neurons and experts; n of every m neighbouring weights; or any weights.
    method: NotRequired[PruningMethod]
    #: taylor (structured): first-order Taylor importance on calibration text; sparsegpt (semi_structured and
    #: unstructured): SparseGPT, which makes up for what is removed with the weights that stay, on calibration text;
    #: wanda (structured, semi_structured and unstructured): weights times the norm of their inputs on calibration
    #: text (Wanda); magnitude (structured, semi_structured and unstructured): the magnitude of weights; random
    #: (structured): chance
    criterion: NotRequired[Criterion]
    #: fraction removed of the layers that are not protected; 0.5 for semi_structured
    ratio: float
    #: semi_structured only
    pattern: NotRequired[Pattern]
    #: decoder layers kept whole at the start
    protect_first: NotRequired[int]
    #: decoder layers kept whole at the end
    protect_last: NotRequired[int]
    #: Text on which importance is measured: `samples` sequences of `sequence_length` tokens.
    calibration: NotRequired[Calibration | None]
    #: structured only: kept neurons and attention channels, rounded up to a multiple of this
    round_to: NotRequired[int]
    #: structured only; uniform: loads in transformers without this package
    layout: NotRequired[Layout]
    #: structured only; global: as many units in total, wherever they matter most; joint: as many parameters, in
    #: whatever heads and neurons they matter most. Without it: joint with criterion taylor and layout per_layer,
    #: otherwise uniform
    scope: NotRequired[Literal["uniform", "global", "joint"]]
    #: scope global and joint only: share of the neurons that every layer keeps
    neuron_floor: NotRequired[float]
    #: semi_structured and unstructured without quantization only
    storage: NotRequired[Storage]


class Publication(TypedDict):
    """Where a checkpoint lies: a commit in a Hub's repository."""

    #: address of the Hub
    endpoint: str
    #: repository on that Hub
    repo_id: str
    #: the one that holds the checkpoint
    commit: str
    #: where the Hub shows it
    url: str


class PublishRequest(TypedDict):
    """Where the checkpoint goes. The repository is made if it does not exist."""

    #: namespace/name
    repo_id: str
    #: whether only its owner may see the repository
    private: NotRequired[bool]


class Quantization(TypedDict):
    #: nf4: linear layers in 4 bits with double quantization
    scheme: NotRequired[Scheme]
    #: nf4: embeddings and LM head in 4 bits as well
    include_embeddings: NotRequired[bool]
    #: nf4: share of the linear layers' weights that stays in bf16, at most: whole matrices, those whose rounding
    #: changes the base model's hidden states most, by alignment's text
    bf16_share: NotRequired[float]


class QuotaAnswer(TypedDict):
    #: of the quota
    name: str
    #: the most that there may be; null: without limit
    limit: int | None
    #: how much there is now; null: requests are counted only where there is a limit
    used: int | None
    #: of both numbers
    unit: str
    #: what is counted, and what happens beyond it
    description: str


class QuotasAnswer(TypedDict):
    """What the tenant may have at once, and has."""

    #: every quota
    items: list[QuotaAnswer]


class Readiness(TypedDict):
    """`ready`, or `degraded`: what is away is named, and what does not need it is still served."""

    #: ready or degraded
    status: str
    #: ok, or what is wrong with it
    database: str
    #: ok, or what is wrong with it
    broker: str
    #: ok, or why the data folder cannot be written to
    storage: str
    #: ok, or how little is free on the data folder's disk
    disk: str
    #: workers seen within the last lease; jobs wait while there is none
    workers: int
    #: ok, or the jobs, by queue, that no running worker holds; still ready then
    capacity: str
    #: seconds since the oldest of these was found out
    age: float


class Recipe(TypedDict):
    #: what goes, and how it is chosen
    pruning: Pruning
    #: how what is left is brought back to what the base model does; null: not
    alignment: NotRequired[Alignment | None]
    #: how weights are stored
    quantization: NotRequired[Quantization]
    #: what is measured, and what has to be shown before it is published; null: nothing
    evaluation: NotRequired[Evaluation | None]
    #: of everything that is drawn by chance
    seed: NotRequired[int]


class Reduction(TypedDict):
    """Base divided by pruned. `bytes` is real files; `bytes_ideal` counts 4-bit as a quarter, as the paper."""

    #: in numbers
    parameters: float
    #: in weight files as published
    bytes: float
    #: with 4-bit weights counted as a quarter of 16-bit ones
    bytes_ideal: float


class Refusal(TypedDict):
    """Why POST /v1/variants would refuse this recipe as things stand."""

    #: path in a variant's request
    field: str | None
    #: what is wrong
    message: str
    #: what would be right
    way_out: str | None


class Several(TypedDict):
    """The align stage where several devices do it."""

    #: Bytes that n devices hold together while they align: `shared` + n × `each`.
    gpu: Together
    #: Bytes that n devices hold together while they align: `shared` + n × `each`.
    cpu: Together


class StageNeeds(TypedDict):
    """Of one stage, in bytes of memory. Where `gpu` is false it computes nothing that a GPU would do faster."""

    #: memory of one GPU
    gpu_bytes: int
    #: memory of a machine that computes on its CPU
    cpu_bytes: int
    #: whether it computes: on a GPU that takes far less time
    gpu: bool


class SweepAnswer(TypedDict):
    """With its variants, in the order of their values."""

    #: the sweep's
    id: str
    #: what is pruned
    base_model_id: str
    #: field of the recipe → its values
    vary: Mapping[str, list[Any]]
    #: given to its variants
    labels: Mapping[str, str]
    #: how many of its jobs are in each state
    states: Mapping[str, int]
    #: seconds since 1970
    created_at: float
    #: as it was asked for
    recipe: Mapping[str, Any]
    #: Where the checkpoints go.
    publish: SweepPublish
    #: those that were not deleted
    variants: list[SweepVariant]


class SweepPublish(TypedDict):
    """Where the checkpoints go."""

    #: namespace/name with {ratio}, {pruning.ratio} or {n} in it, or one name for each variant in order
    repo_id: str | list[str]
    #: whether the repositories are private
    private: NotRequired[bool]


class SweepRequest(TypedDict):
    """`recipe` with every combination of the values in `vary`; the values of its last field change fastest."""

    #: what to prune
    base_model_id: str
    #: what the variants have in common; what varies may be left out
    recipe: Recipe
    #: field of the recipe → its values
    vary: Mapping[str, list[Any]]
    #: Where the checkpoints go.
    publish: SweepPublish
    #: jobs of higher priority are taken first, of equal the oldest
    priority: NotRequired[int]
    #: words of your own to find it by: keys and values as Kubernetes has them
    labels: NotRequired[Mapping[str, str]]


class SweepSummary(TypedDict):
    """A sweep and how far it is."""

    #: the sweep's
    id: str
    #: what is pruned
    base_model_id: str
    #: field of the recipe → its values
    vary: Mapping[str, list[Any]]
    #: given to its variants
    labels: Mapping[str, str]
    #: how many of its jobs are in each state
    states: Mapping[str, int]
    #: seconds since 1970
    created_at: float


class SweepVariant(TypedDict):
    """One of a sweep's variants; what is measured is null until it is published."""

    #: the variant's
    id: str
    #: field of the recipe → what it is in this variant
    values: Mapping[str, Any]
    #: where it is published, or will be
    repo_id: str
    #: null: it was deleted
    job_id: str | None
    #: its job's
    state: JobState | None
    #: Whether the request or the infrastructure is to blame, in which stage, and what to do.
    failure: FailureAnswer | None
    #: Where a checkpoint lies: a commit in a Hub's repository.
    publication: Publication | None
    #: how many times fewer parameters; null: its recipe cannot be read
    reduction: float | None
    #: how many times smaller the weight files are
    bytes_reduction: float | None
    #: the certificate's; null without a probe, too
    verdict: Verdict | None
    #: base model's perplexity over the one with a recovered adapter; above 1 is better
    gain: float | None
    #: share of a direct LoRA's gain; null without one, too
    gain_retained: float | None


class Together(TypedDict):
    """Bytes that n devices hold together while they align: `shared` + n × `each`."""

    #: weights, gradients, the optimizer's states and the teacher, which they share
    shared: int
    #: activations, which each device has of its own
    each: int


class VariantAnswer(TypedDict):
    #: names the variant in other calls
    id: str
    #: what it is made from
    base_model_id: str
    #: how it is made; null if it cannot be read
    recipe: Recipe | None
    #: why the stored recipe cannot be read; null: it can
    recipe_problem: str | None
    #: as it was stored, where it cannot be read
    stored_recipe: Mapping[str, Any] | None
    #: sha256 of the recipe as it was asked for
    recipe_digest: str
    #: where it goes
    publish: PublishRequest
    #: where it lies; null before it is published
    publication: Publication | None
    #: what its proof says; null without one
    certificate: CertificateAnswer | None
    #: why the stored manifest cannot be read; null: it can
    manifest_problem: str | None
    #: the latest that makes it; null: it was deleted
    job: JobAnswer | None
    #: to find it by
    labels: Mapping[str, str]
    #: the sweep that it was made in; null: none
    sweep_id: str | None
    #: seconds since 1970
    created_at: float
    #: the checkpoint's loram.json, once published
    manifest: Mapping[str, Any] | None


class VariantFileAnswer(TypedDict):
    #: within the checkpoint
    path: str
    #: bytes
    size: int
    #: of the content, in hex
    sha256: str


class VariantFiles(TypedDict):
    #: by path
    items: list[VariantFileAnswer]


class VariantRequest(TypedDict):
    #: a registered base model
    base_model_id: str
    #: how the variant is made
    recipe: Recipe
    #: where it goes
    publish: PublishRequest
    #: jobs of higher priority are taken first, of equal the oldest
    priority: NotRequired[int]
    #: to find it by
    labels: NotRequired[Mapping[str, str]]


class VariantSummary(TypedDict):
    """`publication` and `certificate` are there once the job has succeeded; `job` is the latest one.

    A recipe that another version of the service stored is told with today's fields, and means what it meant;
    where that cannot be, `recipe` is null, `recipe_problem` says why, and `stored_recipe` is what was asked
    for.
    """

    #: names the variant in other calls
    id: str
    #: what it is made from
    base_model_id: str
    #: how it is made; null if it cannot be read
    recipe: Recipe | None
    #: why the stored recipe cannot be read; null: it can
    recipe_problem: str | None
    #: as it was stored, where it cannot be read
    stored_recipe: Mapping[str, Any] | None
    #: sha256 of the recipe as it was asked for
    recipe_digest: str
    #: where it goes
    publish: PublishRequest
    #: where it lies; null before it is published
    publication: Publication | None
    #: what its proof says; null without one
    certificate: CertificateAnswer | None
    #: why the stored manifest cannot be read; null: it can
    manifest_problem: str | None
    #: the latest that makes it; null: it was deleted
    job: JobAnswer | None
    #: to find it by
    labels: Mapping[str, str]
    #: the sweep that it was made in; null: none
    sweep_id: str | None
    #: seconds since 1970
    created_at: float


class WaitingAnswer(TypedDict):
    """What a job without a worker waits for besides its turn; no try is counted meanwhile."""

    #: what is waited for
    kind: WaitKind
    #: what is missing
    message: str
    #: where the job goes on
    stage: str | None
    #: what a person can do to end it sooner
    way_out: str | None


class WebhookAnswer(TypedDict):
    #: names the webhook in other calls
    id: str
    #: where events are sent
    url: str
    #: those that are sent; null: all
    events: list[str] | None
    #: to tell webhooks apart
    description: str
    #: false: nothing is sent, and nothing is kept to be sent later
    enabled: bool
    #: seconds since 1970; null: it is enabled
    disabled_at: float | None
    #: who or what disabled it
    disabled_reason: str | None
    #: seconds since 1970: nothing could be delivered since then
    failing_since: float | None
    #: seconds since 1970: the secret of before signs until then, too
    previous_secret_until: float | None
    #: seconds since 1970
    created_at: float


class WebhookChange(TypedDict):
    """What is named is changed, the rest stays."""

    #: where events are sent: https, at an address that everybody can reach
    url: NotRequired[str]
    #: those that are sent; null: all, those of later versions too
    events: NotRequired[list[str] | None]
    #: to tell webhooks apart, one line
    description: NotRequired[str]
    #: false: nothing is sent; true: what still waits is sent
    enabled: NotRequired[bool]


class WebhookRequest(TypedDict):
    #: where events are sent: https, at an address that everybody can reach
    url: str
    #: those that are sent; null: all, those of later versions too
    events: NotRequired[list[str] | None]
    #: to tell webhooks apart, one line
    description: NotRequired[str]


class WeightedCorpus(TypedDict):
    #: as it was registered, or as `--corpus` names it
    name: str
    #: share of the text, relative to the other corpora
    weight: NotRequired[float]


class WorkerAnswer(TypedDict):
    """What a worker measured of itself when it started, and what it holds."""

    #: its Celery name; each start has another one, unless it is started with -n
    id: str
    #: idle, busy with somebody's job, or away
    state: WorkerState
    #: what it computes on
    kind: Machine
    #: the device's name and model
    device: str
    #: memory of one device
    memory_bytes: int
    #: devices that align together
    devices: int
    #: free for its stages when it was last seen; null: unknown
    free_disk_bytes: int | None
    #: those whose jobs it takes, if it holds them: cpu, or GiB that jobs need
    queues: list[str]
    #: measured in matrix products, in the type that it computes in
    flops_per_second: float
    #: the machine that it runs on
    host: str | None
    #: seconds since 1970
    started_at: float | None
    #: seconds since 1970
    seen_at: float


class Workers(TypedDict):
    #: all that were seen within a day
    items: list[WorkerAnswer]
