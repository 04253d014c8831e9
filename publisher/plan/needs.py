"""What a job needs of a worker: memory of its devices stage by stage, disk, and whether a GPU would be used."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pydantic import BaseModel, ConfigDict, Field

from publisher.architecture.geometry import Geometry
from publisher.errors import RequestFault
from publisher.plan.align import AlignMemory, Machine, align_memory
from publisher.plan.disk import disk_bytes
from publisher.plan.several import refuse_for_several
from publisher.plan.sizes import FP32, Widths, adapter_memory, layer_shapes, loaded_bytes, masking_memory
from publisher.recipe import Recipe
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.stages import Stage, planned_stages

#: fp32 numbers of a chunk of logits, and how many such chunks exist at once (worker.evaluation)
_LOGITS = 3 * 2**23


class StageNeeds(BaseModel):
    """Of one stage, in bytes of memory. Where `gpu` is false it computes nothing that a GPU would do faster."""

    model_config = ConfigDict(frozen=True)

    gpu_bytes: int = Field(description="memory of one GPU")
    cpu_bytes: int = Field(description="memory of a machine that computes on its CPU")
    gpu: bool = Field(description="whether it computes: on a GPU that takes far less time")

    def on(self, machine: Machine) -> int:
        return self.gpu_bytes if machine is Machine.GPU else self.cpu_bytes


class Together(BaseModel):
    """Bytes that n devices hold together while they align: `shared` + n × `each`."""

    model_config = ConfigDict(frozen=True)

    shared: int = Field(description="weights, gradients, the optimizer's states and the teacher, which they share")
    each: int = Field(description="activations, which each device has of its own")

    def on(self, devices: int) -> int:
        return self.shared + devices * self.each

    @classmethod
    def of(cls, memory: AlignMemory | None) -> Together:
        """None: nothing is trained."""
        if memory is None:
            return cls(shared=0, each=0)
        return cls(shared=memory.states + memory.teacher, each=memory.activations)


class Several(BaseModel):
    """The align stage where several devices do it."""

    model_config = ConfigDict(frozen=True)

    gpu: Together
    cpu: Together

    def on(self, machine: Machine, devices: int) -> int:
        return (self.gpu if machine is Machine.GPU else self.cpu).on(devices)


class Needs(BaseModel):
    """`gpu_bytes` and `cpu_bytes` are the most over the `stages`; an estimate, see publisher.plan.capacity."""

    model_config = ConfigDict(frozen=True)

    gpu_bytes: int = Field(description="memory of one GPU that does all stages")
    cpu_bytes: int = Field(description="memory of a machine that does all stages on its CPU")
    gpu: bool = Field(description="whether any stage computes: then it goes to a GPU if one that holds it is there")
    disk_bytes: int = Field(description="of all that the stages write, if none is there already")
    several: Several | None = Field(description="aligning on several devices together; null: this recipe cannot")
    stages: dict[str, StageNeeds] = Field(description="name of a stage → what it needs")


@dataclass(frozen=True)
class _Shapes:
    """What memory is reckoned from, and `aligning`: that of training, by machine."""

    geometry: Geometry
    widths: Widths
    recipe: Recipe
    aligning: dict[Machine, AlignMemory | None]


def job_needs(geometry: Geometry, widths: Widths, recipe: Recipe, *, base_bytes: int, is_local: bool) -> Needs:
    """Of a job that makes `recipe`. `base_bytes`: size of the base model's files, which are not copied if it
    `is_local`."""
    aligning = {machine: align_memory(geometry, widths, recipe, machine) for machine in Machine}
    shapes = _Shapes(geometry, widths, recipe, aligning)
    stages = {stage.value: _stage(stage, shapes) for stage in planned_stages(recipe, publishes=True)}
    return Needs(
        gpu_bytes=max(stage.gpu_bytes for stage in stages.values()),
        cpu_bytes=max(stage.cpu_bytes for stage in stages.values()),
        gpu=any(stage.gpu for stage in stages.values()),
        disk_bytes=sum(disk_bytes(geometry, recipe, base_bytes).values()) - (base_bytes if is_local else 0),
        several=_several(shapes),
        stages=stages,
    )


def _several(shapes: _Shapes) -> Several | None:
    try:
        refuse_for_several(shapes.recipe, 2)
    except RequestFault:
        return None
    return Several(gpu=Together.of(shapes.aligning[Machine.GPU]), cpu=Together.of(shapes.aligning[Machine.CPU]))


def _stage(stage: Stage, shapes: _Shapes) -> StageNeeds:
    gpu, cpu = (_memory(stage, shapes, machine) for machine in (Machine.GPU, Machine.CPU))
    return StageNeeds(gpu_bytes=gpu, cpu_bytes=cpu, gpu=_computes(stage, shapes.recipe))


def _computes(stage: Stage, recipe: Recipe) -> bool:
    """Reading, drawing numbers, cutting and writing are no work for a GPU; nor is rounding to 4 bits."""
    match stage:
        case Stage.ALIGN | Stage.EVALUATE:
            return True
        case Stage.CALIBRATE | Stage.PRUNE:
            scores = stage is (Stage.CALIBRATE if recipe.pruning.method.removes_units else Stage.PRUNE)
            return scores and criterion_spec(recipe.pruning.criterion).reads_text
        case Stage.FETCH | Stage.QUANTIZE | Stage.PACKAGE | Stage.PUBLISH:
            return False


def _memory(stage: Stage, shapes: _Shapes, machine: Machine) -> int:
    """What has to be in a device's memory at once; 0 for what only files go through."""
    match stage:
        case Stage.ALIGN:
            training = shapes.aligning[machine]
            return training.total if training else _streamed(shapes.geometry, machine)
        case Stage.EVALUATE:
            return _evaluated(shapes, machine)
        case Stage.CALIBRATE | Stage.PRUNE | Stage.QUANTIZE:
            return _streamed(shapes.geometry, machine)
        case Stage.FETCH | Stage.PACKAGE | Stage.PUBLISH:
            return 0


def _streamed(geometry: Geometry, machine: Machine) -> int:
    """One decoder layer with its gradient, and the head: the others wait on disk."""
    of_kind = [
        sum(map(prod, layer_shapes(kind, geometry.widths_of(kind.units))))
        for kind in (geometry.kinds[index] for index in sorted(set(geometry.kind_of)))
    ]
    head = geometry.vocab_size * geometry.hidden_size
    return (2 * max(of_kind) + head) * machine.weight_bytes


def _evaluated(shapes: _Shapes, machine: Machine) -> int:
    """The base model, which is measured whole, or the checkpoint with the probe in training: one at a time."""
    geometry, widths, recipe = shapes.geometry, shapes.widths, shapes.recipe
    base = geometry.parameters() * machine.weight_bytes + _LOGITS * FP32
    if recipe.evaluation is None or not recipe.evaluation.probe:
        return base
    trained = loaded_bytes(geometry, widths, recipe.quantization, machine.weight_bytes)
    return max(base, trained + adapter_memory(geometry, widths) + masking_memory(geometry, recipe))
