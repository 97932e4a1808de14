"""Model: weights, tokenizer and chat template; immutable, shared by any number of engines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from . import _native
from ._native import check, ffi, filled, filled_bytes, integer, lib, name_of, new_struct, string, text_of
from .errors import InvalidArgumentError

Message = Mapping[str, Any]
Progress = Callable[[float], "bool | None"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What dasan_model_get_info says. Tokens are -1 where the model has none."""

    architecture: str
    quantization: str
    device: str
    name: str
    n_layers: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    n_ctx_train: int
    token_bos: int
    token_eos: int
    token_eot: int
    token_pad: int
    n_params: int
    file_bytes: int
    weight_bytes: int
    kv_bytes_per_token: int
    fingerprint: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """The tokens of a text. `offsets` are character ranges, `byte_offsets` ranges of its UTF-8; both
    count in the text as given. A token that holds part of a character has the whole character."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    byte_offsets: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)

    def covered(self, index: int) -> str:
        """The text that a token came from; empty for one that was added."""
        begin, end = self.offsets[index]
        return self.text[begin:end]


class Model:
    """A GGUF file or a Hugging Face checkpoint folder, used as it is.

    `progress` is called with the fraction loaded; what it raises, or its returning False, ends the
    loading. `overrides` replaces configuration values by their Hugging Face or GGUF key.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        vocab_only: bool = False,
        cpu_isa: str | None = None,
        threads: int = 0,
        overrides: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.path = os.fspath(path)
        if "\0" in self.path:
            raise InvalidArgumentError(f"path: {self.path!r}, expected one without a NUL")
        keep: list[Any] = []
        params = new_struct("dasan_model_params")
        if vocab_only:
            params.flags = lib.DASAN_MODEL_VOCAB_ONLY
        params.n_threads = integer("threads", threads)
        if cpu_isa is not None:
            keep.append(ffi.new("char[]", cpu_isa.encode()))
            params.cpu_isa = keep[-1]
        if overrides:
            pairs = [
                {"key": string(keep, key), "value": string(keep, json.dumps(value))}
                for key, value in overrides.items()
            ]
            keep.append(ffi.new("dasan_override[]", pairs))
            params.overrides, params.n_overrides = keep[-1], len(pairs)

        raised: list[BaseException] = []
        if progress is not None:

            @ffi.callback("int32_t(void *, float)", error=1)  # type: ignore[untyped-decorator]
            def on_progress(_user: Any, fraction: float) -> int:
                try:
                    return 1 if progress(fraction) is False else 0
                except BaseException as error:
                    raised.append(error)
                    return 1

            keep.append(on_progress)
            params.on_progress = on_progress
        out = ffi.new("dasan_model **")
        status = lib.dasan_model_load(out, os.fsencode(self.path), params)
        if raised:
            raise raised[0]
        check(status)
        self._handle = _native.Handle("model", out[0], lib.dasan_model_release)
        self._info: ModelInfo | None = None

    # ---- life

    def close(self) -> None:
        """Gives the model back; engines over it go on."""
        self._handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what it is

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raw = new_struct("dasan_model_info")
            check(lib.dasan_model_get_info(self._handle.get(), raw))
            values = {
                field: name_of(getattr(raw, field))
                if field in ("architecture", "quantization", "device", "name")
                else int(getattr(raw, field))
                for field in ModelInfo.__dataclass_fields__
            }
            self._info = ModelInfo(**values)  # type: ignore[arg-type]
        return self._info

    @property
    def metadata(self) -> dict[str, Any]:
        """The file's metadata; long arrays are abbreviated."""
        handle, key, value = self._handle.get(), ffi.new("dasan_str *"), ffi.new("dasan_str *")
        result: dict[str, Any] = {}
        for index in range(lib.dasan_model_metadata_count(handle)):
            check(lib.dasan_model_metadata_at(handle, index, key, value))
            result[text_of(key)] = _json_or_text(text_of(value))
        return result

    @property
    def chat_template(self) -> str | None:
        """The source of the model's own template; None: it has none."""
        value = ffi.new("dasan_str *")
        if lib.dasan_model_get_metadata(self._handle.get(), b"tokenizer.chat_template", value) == 0:
            source = _json_or_text(text_of(value))
            return source if isinstance(source, str) else None
        folder = Path(self.path)
        if (folder / "chat_template.jinja").is_file():
            return (folder / "chat_template.jinja").read_text(encoding="utf-8")
        if (folder / "tokenizer_config.json").is_file():
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            source = config.get("chat_template")
            return source if isinstance(source, str) else None
        return None

    @property
    def eos_tokens(self) -> list[int]:
        """Every token that ends a generation."""
        handle = self._handle.get()
        ids, n = filled("int32_t", 8, lambda b, cap, out: lib.dasan_model_eos_tokens(handle, b, cap, out))
        return list(ffi.unpack(ids, n)) if n else []

    # ---- text and tokens

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = False, nfc: bool = False
    ) -> Encoding:
        """Tokens with the places they came from. `nfc` normalises first; offsets stay those of the
        text as given."""
        flags = (
            (lib.DASAN_TOK_ADD_SPECIAL if add_special else 0)
            | (lib.DASAN_TOK_PARSE_SPECIAL if parse_special else 0)
            | (lib.DASAN_TOK_NFC if nfc else 0)
        )
        ids, spans, data = self._tokenize(text, flags, with_spans=True)
        byte_offsets = [(spans[i].begin, spans[i].end) for i in range(len(ids))]
        return Encoding(text, ids, _characters(data, text, byte_offsets), byte_offsets)

    def token_ids(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The tokens alone."""
        flags = (lib.DASAN_TOK_ADD_SPECIAL if add_special else 0) | (
            lib.DASAN_TOK_PARSE_SPECIAL if parse_special else 0
        )
        return self._tokenize(text, flags, with_spans=False)[0]

    def _tokenize(self, text: str, flags: int, *, with_spans: bool) -> tuple[list[int], Any, bytes]:
        handle = self._handle.get()
        keep: list[Any] = []
        data = string(keep, text)
        size = data["size"]
        spans: Any = ffi.NULL

        def call(buffer: Any, cap: int, out: Any) -> int:
            nonlocal spans
            if with_spans:
                spans = ffi.new("dasan_span[]", max(cap, 1))
            return int(lib.dasan_tokenize(handle, data["data"], size, flags, buffer, spans, cap, out))

        ids, n = filled("int32_t", size // 2 + 8, call)
        return (list(ffi.unpack(ids, n)) if n else []), spans, keep[1]

    def detokenize(self, tokens: Sequence[int], *, render_special: bool = False) -> str:
        """The text of tokens; a character cut in half becomes U+FFFD."""
        handle = self._handle.get()
        array = _native.token_array("tokens", tokens)
        flags = lib.DASAN_TOK_RENDER_SPECIAL if render_special else 0
        return filled_bytes(
            8 * len(array) + 8,
            lambda b, cap, out: lib.dasan_detokenize(handle, array, len(array), flags, b, cap, out),
        ).decode("utf-8", "replace")

    def token_bytes(self, token: int, *, render_special: bool = True) -> bytes:
        """The bytes of one token, which may be part of a character."""
        handle = self._handle.get()
        wanted = integer("token", token, "int32_t")
        flags = lib.DASAN_TOK_RENDER_SPECIAL if render_special else 0
        return filled_bytes(
            64, lambda b, cap, out: lib.dasan_token_piece(handle, wanted, flags, b, cap, out)
        )

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        template: str | None = None,
        generation_prompt: bool = True,
    ) -> str:
        """The text the model's own template makes of a conversation. It holds its begin token where
        the template writes one: tokenize it with parse_special=True, add_special=False."""
        handle = self._handle.get()
        keep: list[Any] = []
        params = new_struct("dasan_chat_params")
        if not generation_prompt:
            params.flags = lib.DASAN_CHAT_NO_GENERATION_PROMPT
        params.messages_json = string(keep, _dumps("messages", list(messages)), "messages")
        if tools:
            params.tools_json = string(keep, _dumps("tools", list(tools)), "tools")
        if variables:
            params.extra_json = string(keep, _dumps("variables", dict(variables)), "variables")
        if template is not None:
            params.template_override = string(keep, template, "template")
        return filled_bytes(
            4096, lambda b, cap, out: lib.dasan_apply_chat_template(handle, params, b, cap, out)
        ).decode("utf-8")

    def chat_tokens(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt of a conversation as tokens."""
        text = self.apply_chat_template(messages, tools=tools, variables=variables)
        return self.token_ids(text, add_special=False, parse_special=True)

    def plan(self, **params: int) -> dict[str, int]:
        """The bytes that an engine with these parameters would hold; works with vocab_only."""
        from .engine import engine_params

        raw = new_struct("dasan_plan")
        check(lib.dasan_plan_memory(self._handle.get(), engine_params(params), raw))
        names = [name for name, _ in ffi.typeof("dasan_plan").fields]
        return {name: int(getattr(raw, name)) for name in names if name not in ("struct_size", "reserved")}

    def __repr__(self) -> str:
        if self._handle.closed:
            return f"<dasan.Model {self.path!r} (closed)>"
        i = self.info
        return (
            f"<dasan.Model {i.name or Path(self.path).name!r}: {i.architecture}, "
            f"{i.n_params / 1e6:.1f} M parameters, {i.quantization}, {i.device}>"
        )

    def _repr_html_(self) -> str:
        from .notebook import model_html

        return model_html(self)


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _dumps(what: str, value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{what}: {error}, expected what JSON can hold") from None


def _characters(data: bytes, text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Byte ranges as character ranges, widened to whole characters."""
    if len(data) == len(text):
        return spans
    starts: list[int] = []  # of the character each byte belongs to
    for index, character in enumerate(text):
        starts += [index] * len(character.encode("utf-8"))
    return [
        (
            starts[begin] if begin < len(starts) else len(text),
            starts[end - 1] + 1 if end > begin else (starts[begin] if begin < len(starts) else len(text)),
        )
        for begin, end in spans
    ]



