"""Lowered IRModule → native object file, by LLVM.

How much freedom LLVM has with floats: a product that is added may be fused into one instruction (``contract``), which
rounds once instead of twice; nothing is reassociated, approximated, or assumed free of NaN, infinity or -0.0, and
denormals are kept, but in float32 vectors of 32-bit Arm, whose NEON takes them for zero. A reduction therefore runs in
the program's order, and only the program can split it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_function import FunctionText, emit_function
from crossfarm.errors import BuildFailed
from crossfarm.ir.calls import callees_of, is_caller
from crossfarm.ir.module import IRModule
from crossfarm.target.cpu import MODELS
from crossfarm.target.triples import llvm_triple

if TYPE_CHECKING:
    from crossfarm.target import Target


#: LLVM's level 3 unrolls twice as far as 2 and repeats more: up to 60 % more time for code that is no faster, as what
#: pays is unrolled by then.
_HIGHEST_LEVEL = 2


#: Calling conventions that a triple alone does not tell LLVM; arm's is in its triple.
_ABIS = {"riscv64": "lp64d"}
#: Where LLVM's models are what ``crossfarm.target.cpu.MODELS`` says. Elsewhere LLVM's generic models lack what every
#: Linux on them has (floating point), and the features of ours are listed one by one.
_MODELS_AS_LLVMS = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Machine:
    """What LLVM is told of a target."""

    triple: str
    cpu: str
    features: str
    tune: str
    opt_level: int
    abi: str = ""

    @classmethod
    def of(cls, target: Target, opt_level: int) -> Machine:
        at = target.attributes
        features = at.get("features", ())
        assert isinstance(features, tuple)
        cpu, arch = str(at["cpu"]), str(at["arch"])
        if arch not in _MODELS_AS_LLVMS:
            features = (*(f"+{name}" for name in sorted(MODELS[arch][cpu])), *features)
        return cls(
            llvm_triple(arch, str(at["os"])),
            cpu,
            ",".join(features),
            str(at.get("tune", cpu)),
            opt_level,
            _ABIS.get(arch, ""),
        )


def llvm_version() -> str:
    """``"22.1.0"``."""
    return ".".join(map(str, llvm.llvm_version_info))


def emit_module(module: IRModule, target: Target, machine: Machine) -> tuple[str, dict[str, FunctionText]]:
    """LLVM IR of the module's public functions and those that they call, and what is known of each by name."""
    can = Abilities.of(target)
    functions: dict[str, FunctionText] = {}
    called = callees_of(module.prim_funcs)
    metadata = ['!0 = !{!"branch_weights", i32 1, i32 2000}', "!1 = !{i32 1}"]
    declarations: dict[str, str] = {}
    for name, func in sorted(module.prim_funcs.items(), key=lambda item: is_caller(item[1])):
        if func.private and name not in called:
            continue
        text = emit_function(name, func, can, len(metadata), functions)
        metadata.extend(text.loops)
        declarations.update(text.declarations)
        functions[name] = text
    features = f'"target-cpu"="{machine.cpu}" "target-features"="{machine.features}" "tune-cpu"="{machine.tune}"'
    attributes = (
        f"attributes #0 = {{ nounwind {features} }}\n"
        f"attributes #1 = {{ nounwind noinline {features} }}\n"
        "attributes #2 = { nounwind willreturn memory(none) }\n"
        f"attributes #3 = {{ alwaysinline nounwind willreturn memory(none) {features} }}\n"
        f"attributes #4 = {{ noinline nounwind willreturn memory(none) {features} }}\n"
    )
    parts = [
        f'source_filename = "crossfarm"\ntarget triple = "{machine.triple}"\n',
        *(f.text for f in functions.values()),
        "\n".join(declarations[name] for name in sorted(declarations)),
        attributes,
        "\n".join(metadata),
    ]
    return "\n".join(parts) + "\n", functions


def optimize(text: str, machine: Machine, *, vectorize: bool = True) -> llvm.ModuleRef:
    """Parses, checks and optimizes LLVM IR for the machine. Raises BuildFailed with LLVM's message.

    Args:
        vectorize: whether LLVM may make vectors of loops and neighbouring statements, at level 2 and above.
    """
    target_machine = _target_machine(machine)
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as failure:
        raise BuildFailed(f"LLVM refused the generated code: {failure}") from failure
    module.data_layout = str(target_machine.target_data)
    tuning = llvm.PipelineTuningOptions(speed_level=min(machine.opt_level, _HIGHEST_LEVEL))
    vectorize = vectorize and machine.opt_level >= 2
    tuning.loop_vectorization = vectorize
    tuning.slp_vectorization = vectorize
    tuning.loop_interleaving = vectorize
    tuning.loop_unrolling = machine.opt_level >= 1
    builder = llvm.create_pass_builder(target_machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module


def object_code(module: llvm.ModuleRef, machine: Machine) -> bytes:
    """The relocatable object file of an optimized module."""
    return bytes(_target_machine(machine).emit_object(module))


def assembly(module: llvm.ModuleRef, machine: Machine) -> str:
    """The assembly text of an optimized module."""
    return str(_target_machine(machine).emit_assembly(module))


def stub_object(names: tuple[str, ...], machine: Machine) -> bytes:
    """An object file that defines ``names`` as functions, for the linker to find."""
    functions = "\n".join(f"define void @{name}() {{ ret void }}" for name in names)
    module = llvm.parse_assembly(f'target triple = "{machine.triple}"\n{functions}\n')
    return object_code(module, machine)


@cache
def _target_machine(machine: Machine) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu,
        features=machine.features,
        opt=machine.opt_level,
        reloc="pic",
        codemodel="default",
        abiname=machine.abi,
    )
