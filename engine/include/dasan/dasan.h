/* clang-format off */
/* dasan.h - the C interface of libdasan. C99; no C++, CUDA or Eigen type appears here.
 *
 * Objects      model    immutable weights, tokenizer and chat template; share freely
 *              engine   scheduler and KV pages over one model; owns (or borrows) the thread that steps
 *              session  a token history and its KV pages: one conversation
 *              request  one generation in flight
 * Life         every *_release accepts NULL; children keep their parents alive, so any order is right.
 * Errors       fallible functions return dasan_status: 0 ok, < 0 failed. dasan_error_message() is the
 *              calling thread's last failure; a failure that happens later belongs to its request and
 *              arrives in its DONE event. No function aborts, exits, prints or throws.
 * Structs      set struct_size (the *_INIT macros do) and zero the rest: zero always means "default".
 *              A larger struct than the library knows is accepted if the unknown tail is zero, a
 *              smaller one is read as if extended with zeros. Fields are only ever appended; no
 *              struct has implicit padding. Nonzero unknown flags are DASAN_E_UNSUPPORTED.
 * Threads      functions taking `const X *` may run concurrently on that X; functions taking `X *`
 *              are serialised by the caller per object, except those marked [any thread].
 * Strings      UTF-8, pointer + length; DASAN_NTS as length means NUL-terminated. Invalid UTF-8 is
 *              DASAN_E_INVALID_ARGUMENT with the byte position.
 * Buffers      *len out-parameters receive the full size, also on DASAN_E_BUFFER_TOO_SMALL, so a
 *              call with capacity 0 asks for the size. Text buffers are not NUL-terminated.
 * Memory       the caller never frees what it did not allocate; borrowed pointers say until when.
 */
/* clang-format on */
#ifndef DASAN_H
#define DASAN_H
/* clang-format off: laid out by hand, to be read as a page */

#include <stddef.h>
#include <stdint.h>

#if defined(DASAN_STATIC)
#define DASAN_API
#elif defined(_WIN32) && defined(DASAN_BUILD)
#define DASAN_API __declspec(dllexport)
#elif defined(_WIN32)
#define DASAN_API __declspec(dllimport)
#else
#define DASAN_API __attribute__((visibility("default")))
#endif

#define DASAN_VERSION_MAJOR 0
#define DASAN_VERSION_MINOR 1
#define DASAN_VERSION_PATCH 0
#define DASAN_VERSION_NUMBER 100 /* major * 10000 + minor * 100 + patch */
#define DASAN_NTS SIZE_MAX

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status --------------------------------------------------------------------------------- */

typedef int32_t dasan_status; /* fixed width: an enum's size is the compiler's choice */
enum {
  DASAN_OK = 0,
  DASAN_E_INVALID_ARGUMENT = -1,
  DASAN_E_OUT_OF_MEMORY = -2, /* host or device */
  DASAN_E_NOT_FOUND = -3,     /* file, metadata key, device */
  DASAN_E_IO = -4,
  DASAN_E_FORMAT = -5,      /* a file is not what it claims to be */
  DASAN_E_UNSUPPORTED = -6, /* architecture, quantisation, or a field newer than this library */
  DASAN_E_BUFFER_TOO_SMALL = -7,
  DASAN_E_CAPACITY = -8, /* no KV pages or queue slots; retry later */
  DASAN_E_TIMEOUT = -9,
  DASAN_E_CANCELLED = -10,
  DASAN_E_STATE = -11,   /* call not allowed now, for example a busy session */
  DASAN_E_DEVICE = -12,  /* a device fault; the engine is unusable, the process is fine */
  DASAN_E_INTERNAL = -13 /* a bug in dasan */
};

DASAN_API uint32_t dasan_version_number(void); /* of the library actually loaded */
DASAN_API const char* dasan_build_info(
    void); /* "0.1.0 cpu=avx512,avx2,generic cuda=yes": built with it */
DASAN_API const char* dasan_status_name(dasan_status s); /* "DASAN_E_IO"; static */
/* This thread's last failure; never NULL; valid until this thread's next failing dasan call. */
DASAN_API const char* dasan_error_message(void);

typedef struct dasan_str {
  const char* data;
  size_t size; /* bytes, or DASAN_NTS in arguments */
} dasan_str;

enum { DASAN_LOG_ERROR = 1, DASAN_LOG_WARN = 2, DASAN_LOG_INFO = 3, DASAN_LOG_DEBUG = 4 };
typedef void (*dasan_log_fn)(void* user, int32_t level, dasan_str message); /* from any thread */
/* The process-wide sink of notes that belong to no call. NULL (the default): silent. Returns after
 * no call of the previous sink is running any more; not to be called from inside a sink. */
DASAN_API void dasan_log_set(dasan_log_fn fn, void* user, int32_t max_level);

/* ---- devices -------------------------------------------------------------------------------- */

enum { DASAN_DEVICE_AUTO = 0, DASAN_DEVICE_CPU = 1, DASAN_DEVICE_CUDA = 2 };
typedef struct dasan_device_info {
  uint32_t struct_size, reserved;
  int32_t kind, ordinal;
  uint64_t memory_total, memory_free; /* bytes */
  char name[64], isa[32];             /* "avx512", "sm_90"; NUL-terminated */
} dasan_device_info;
#define DASAN_DEVICE_INFO_INIT                                     \
  {                                                                \
    (uint32_t)sizeof(dasan_device_info), 0, 0, 0, 0, 0, {0}, { 0 } \
  }
DASAN_API int32_t dasan_device_count(void); /* at least 1: the CPU is device 0 */
DASAN_API dasan_status dasan_device_get(int32_t index, dasan_device_info* out);

/* ---- model ---------------------------------------------------------------------------------- */

typedef struct dasan_model dasan_model;

enum {
  /* Tokenizer, template, metadata and shapes; no weights. A file or folder that holds none, of any
   * architecture, gives what it has: its dasan_model_info has zeros for the shapes. */
  DASAN_MODEL_VOCAB_ONLY = 1u << 0
};
/* One configuration value that replaces the file's, by its Hugging Face or GGUF key; the value is
 * JSON: {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4.0}"}. Unknown keys are refused. */
typedef struct dasan_override {
  dasan_str key, value;
} dasan_override;

typedef struct dasan_model_params {
  uint32_t struct_size, flags;         /* DASAN_MODEL_* */
  int32_t device_kind, device_ordinal; /* DASAN_DEVICE_* */
  uint32_t n_threads;                  /* for packing weights; 0 = all cores */
  uint32_t reserved;
  const char* cpu_isa; /* "avx512", "avx2", "generic"; NULL: $DASAN_CPU_ISA, else the best. One
                          that this machine lacks is DASAN_E_UNSUPPORTED */
  const dasan_override* overrides;
  size_t n_overrides;
  int32_t (*on_progress)(void* user, float fraction); /* on the calling thread; nonzero cancels */
  void* user;
} dasan_model_params;
#define DASAN_MODEL_PARAMS_INIT \
  { (uint32_t)sizeof(dasan_model_params), 0, 0, 0, 0, 0, NULL, NULL, 0, NULL, NULL }

typedef struct dasan_model_info {
  uint32_t struct_size, n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx_train;
  int32_t token_bos, token_eos, token_eot, token_pad; /* -1: none */
  uint64_t n_params, file_bytes, weight_bytes;        /* weight_bytes: held in memory */
  uint64_t kv_bytes_per_token;                        /* at the default KV type */
  uint64_t fingerprint;
  char architecture[32], quantization[32], device[32], name[128]; /* NUL-terminated, cut if long */
} dasan_model_info;
#define DASAN_MODEL_INFO_INIT                                                                     \
  {                                                                                               \
    (uint32_t)sizeof(dasan_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {0}, {0}, \
        {0}, {                                                                                    \
      0                                                                                           \
    }                                                                                             \
  }

/* `path`: a GGUF file (the first of a split set) or a Hugging Face checkpoint folder; used as it
 * is, without conversion. The files stay mapped until the last user of the model is released. */
DASAN_API dasan_status dasan_model_load(dasan_model** out, const char* path,
                                        const dasan_model_params* params /* NULL: defaults */);
DASAN_API void dasan_model_release(dasan_model* m);
DASAN_API dasan_status dasan_model_get_info(const dasan_model* m, dasan_model_info* out);

/* Borrowed strings live as long as the model. Values are JSON; long arrays are abbreviated. */
DASAN_API size_t dasan_model_metadata_count(const dasan_model* m);
DASAN_API dasan_status dasan_model_metadata_at(const dasan_model* m, size_t index, dasan_str* key,
                                               dasan_str* value);
DASAN_API dasan_status dasan_model_get_metadata(const dasan_model* m, const char* key,
                                                dasan_str* value);
typedef struct dasan_tensor_info {
  uint32_t struct_size, n_dims;
  int64_t shape[4]; /* row-major, outermost first */
  uint64_t size_bytes;
  dasan_str name, dtype; /* borrowed from the model */
} dasan_tensor_info;
#define DASAN_TENSOR_INFO_INIT                                             \
  {                                                                        \
    (uint32_t)sizeof(dasan_tensor_info), 0, {0}, 0, {NULL, 0}, { NULL, 0 } \
  }
DASAN_API size_t dasan_model_tensor_count(const dasan_model* m);
DASAN_API dasan_status dasan_model_tensor_at(const dasan_model* m, size_t index,
                                             dasan_tensor_info* out);
/* Every id that ends a generation (config, generation_config and tokenizer together). */
DASAN_API dasan_status dasan_model_eos_tokens(const dasan_model* m, int32_t* tokens, size_t cap,
                                              size_t* len);

/* ---- text <-> tokens ------------------------------------------------------------------------- */

enum {
  DASAN_TOK_ADD_SPECIAL = 1u << 0,    /* begin/end tokens as the model's tokenizer adds them */
  DASAN_TOK_PARSE_SPECIAL = 1u << 1,  /* "<|eot|>" in the text becomes that token */
  DASAN_TOK_RENDER_SPECIAL = 1u << 2, /* detokenize: control tokens as text instead of nothing */
  DASAN_TOK_NFC = 1u << 3             /* normalise to NFC first, also if the tokenizer does not */
};
typedef struct dasan_span {
  int32_t begin, end; /* byte range in the original text, before any normalisation */
} dasan_span;
/* tokens and spans (may be NULL) hold `cap` entries each. */
DASAN_API dasan_status dasan_tokenize(const dasan_model* m, const char* text, size_t size,
                                      uint32_t flags, int32_t* tokens, dasan_span* spans,
                                      size_t cap, size_t* len);
DASAN_API dasan_status dasan_detokenize(const dasan_model* m, const int32_t* tokens, size_t n,
                                        uint32_t flags, char* buf, size_t cap, size_t* len);
/* The bytes of one token; may be part of a character. */
DASAN_API dasan_status dasan_token_piece(const dasan_model* m, int32_t token, uint32_t flags,
                                         char* buf, size_t cap, size_t* len);

typedef struct dasan_message { /* frozen layout */
  dasan_str role, content;
} dasan_message;
enum { DASAN_CHAT_NO_GENERATION_PROMPT = 1u << 0 };
typedef struct dasan_chat_params {
  uint32_t struct_size, flags;
  const dasan_message* messages; /* either this ... */
  size_t n_messages;
  dasan_str messages_json; /* ... or a JSON array of messages, passed to the template whole */
  dasan_str tools_json;    /* JSON array; empty: none */
  dasan_str extra_json;    /* JSON object whose members become template variables; empty: none */
  dasan_str template_override; /* Jinja source; empty: the model's */
  int64_t now_unix_s; /* what strftime_now sees (UTC); 0: this machine's clock, local time */
} dasan_chat_params;
#define DASAN_CHAT_PARAMS_INIT \
  { (uint32_t)sizeof(dasan_chat_params), 0, NULL, 0, {NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}, 0 }
/* Renders the model's own Jinja template. The text already holds its begin token where the template
 * writes one: tokenize it with PARSE_SPECIAL and without ADD_SPECIAL. */
DASAN_API dasan_status dasan_apply_chat_template(const dasan_model* m,
                                                 const dasan_chat_params* params, char* buf,
                                                 size_t cap, size_t* len);

/* ---- engine ---------------------------------------------------------------------------------- */

typedef struct dasan_engine dasan_engine;

enum { DASAN_KV_AUTO = 0, DASAN_KV_F16 = 1, DASAN_KV_BF16 = 2, DASAN_KV_F32 = 3 };
enum {
  DASAN_DRIVE_THREAD = 0, /* the engine steps on its own thread */
  DASAN_DRIVE_CALLER = 1  /* nothing happens outside dasan_engine_step() and the calls that say so;
                             with n_threads = 1 the engine has no thread at all */
};
enum {
  DASAN_ENGINE_NO_PREFIX_CACHE = 1u << 0 /* no request uses KV that another computed */
};
typedef struct dasan_engine_params {
  uint32_t struct_size, flags;   /* DASAN_ENGINE_* */
  int32_t drive, kv_type;        /* DASAN_DRIVE_*, DASAN_KV_* */
  uint32_t max_sequences;        /* running at once; 0 = 16 */
  uint32_t max_batch_tokens;     /* tokens per step, prefill chunking; 0 = 512 */
  uint32_t max_context;          /* tokens of one sequence; 0 = the model's, at most 32768 */
  uint32_t n_threads;            /* CPU; 0 = all cores */
  uint32_t max_queued;           /* requests waiting; 0 = 1024 */
  uint32_t mixed_prefill_tokens; /* of long prompts, in a step in which others decode; 0 = as many
                                    as let those wait at most 1.3 times as long for their tokens,
                                    more when more wait than decode */
  uint64_t kv_bytes; /* KV cache; 0 = one full context, or less: a quarter of the free memory
                        of this machine, four fifths of that of a device */
} dasan_engine_params;
#define DASAN_ENGINE_PARAMS_INIT \
  { (uint32_t)sizeof(dasan_engine_params), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* What an engine over this model would hold, in bytes; works on a VOCAB_ONLY model, before any
 * weight is loaded. */
typedef struct dasan_plan {
  uint32_t struct_size, max_context; /* as the parameters resolve */
  uint64_t weight_bytes, kv_bytes, workspace_bytes, total_bytes;
  uint64_t kv_tokens; /* tokens that kv_bytes holds */
} dasan_plan;
#define DASAN_PLAN_INIT \
  { (uint32_t)sizeof(dasan_plan), 0, 0, 0, 0, 0, 0 }
DASAN_API dasan_status dasan_plan_memory(const dasan_model* m, const dasan_engine_params* params,
                                         dasan_plan* out);

typedef struct dasan_engine_stats {
  uint32_t struct_size, running, waiting, reserved;
  uint64_t steps, tokens_prefilled, tokens_generated;
  uint64_t kv_pages_total, kv_pages_used;
  uint64_t requests_done, requests_failed, requests_cancelled;
  uint64_t kv_pages_idle; /* held by nobody, contents kept for whoever asks again */
  uint64_t tokens_cached; /* of prompts, whose KV was there already */
  uint64_t preemptions;   /* running requests whose pages went to others, to be computed again */
} dasan_engine_stats;
#define DASAN_ENGINE_STATS_INIT \
  { (uint32_t)sizeof(dasan_engine_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

DASAN_API dasan_status dasan_engine_create(dasan_engine** out, dasan_model* m,
                                           const dasan_engine_params* params /* NULL: defaults */);
/* Cancels what is left; its requests still deliver DONE. Not from inside an event callback. */
DASAN_API void dasan_engine_release(dasan_engine* e);
/* One step of DASAN_DRIVE_CALLER; has_more (may be NULL): work is left. */
DASAN_API dasan_status dasan_engine_step(dasan_engine* e, int32_t* has_more);
DASAN_API dasan_status dasan_engine_get_stats(const dasan_engine* e, dasan_engine_stats* out);

/* ---- generation ------------------------------------------------------------------------------ */

typedef struct dasan_session dasan_session;
typedef struct dasan_request dasan_request;

typedef struct dasan_token_prob {
  int32_t token;
  float logprob; /* natural logarithm, of the model's distribution before any sampling filter */
} dasan_token_prob;

enum { DASAN_EVENT_TOKENS = 1, DASAN_EVENT_DONE = 2 };
enum {
  DASAN_FINISH_NONE = 0,
  DASAN_FINISH_STOP = 1,   /* an end token or a stop string */
  DASAN_FINISH_LENGTH = 2, /* max_tokens, or the context is full */
  DASAN_FINISH_CANCELLED = 3,
  DASAN_FINISH_ERROR = 4
};
/* Pointers are borrowed until the next dasan_request_next on the request, its release, or the
 * return of the callback. */
typedef struct dasan_event {
  uint32_t struct_size, n_tokens;
  int32_t kind, finish;
  const int32_t* tokens;       /* (n_tokens) */
  const float* logprobs;       /* (n_tokens), or NULL unless asked for */
  const dasan_token_prob* top; /* (n_tokens, n_top) most likely first, or NULL unless asked for */
  dasan_str text;              /* whole UTF-8 characters only; half a character, or text that may
                                  become a stop string, waits for the next event */
  dasan_str error;             /* when finish == DASAN_FINISH_ERROR */
  dasan_status status;         /* likewise */
  uint32_t n_top;
  uint32_t prompt_tokens, cached_tokens, generated_tokens, reserved;
  double queue_seconds, prefill_seconds, decode_seconds; /* so far */
  double logprob_sum; /* of all generated tokens so far, when asked for: best of several samples */
} dasan_event;
#define DASAN_EVENT_INIT                                                                           \
  {                                                                                                \
    (uint32_t)sizeof(dasan_event), 0, 0, 0, NULL, NULL, NULL, {NULL, 0}, {NULL, 0}, 0, 0, 0, 0, 0, \
        0, 0, 0, 0, 0                                                                              \
  }
typedef int32_t (*dasan_event_fn)(void* user, const dasan_event* event); /* nonzero cancels */

typedef struct dasan_logit_bias { /* frozen layout */
  int32_t token;
  float bias; /* added to the logit; -INFINITY bans the token */
} dasan_logit_bias;

/* All zero: greedy. Order: logit_bias, penalties, temperature, top_k, top_p, min_p, draw. */
typedef struct dasan_sampling {
  uint32_t struct_size;
  int32_t top_k;            /* 0: off */
  float temperature;        /* 0: greedy */
  float top_p;              /* 0: off */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 0: off; > 1 makes seen tokens less likely */
  float presence_penalty, frequency_penalty;
  uint32_t penalty_window; /* last tokens looked at, prompt included; 0 = 64 */
  uint32_t reserved;
  uint64_t seed; /* used as given: same seed, same prompt, same answer */
  const dasan_logit_bias* logit_bias;
  size_t n_logit_bias;
} dasan_sampling;
#define DASAN_SAMPLING_INIT \
  { (uint32_t)sizeof(dasan_sampling), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0 }

enum {
  DASAN_REQ_LOGPROBS = 1u << 0,
  DASAN_REQ_IGNORE_EOS = 1u << 1,
  DASAN_REQ_RENDER_SPECIAL = 1u << 2, /* control tokens appear in the text */
  DASAN_REQ_STEPS = 1u << 3           /* keeps a record of each step, for dasan_request_steps */
};
typedef struct dasan_request_params {
  uint32_t struct_size, flags; /* DASAN_REQ_* */
  dasan_session* session;      /* continues its history; NULL: a fresh one, dropped at the end */
  const int32_t* prompt;
  size_t n_prompt;
  uint32_t max_tokens;            /* 0 = until the context is full */
  uint32_t deadline_ms;           /* from submit; 0 = none. Late: DONE with DASAN_E_TIMEOUT */
  int32_t priority;               /* higher first */
  uint32_t n_top;                 /* with LOGPROBS: alternatives per token, at most 20 */
  const dasan_sampling* sampling; /* NULL: greedy */
  const dasan_str* stop;          /* copied */
  size_t n_stop;
  dasan_event_fn on_event; /* NULL: pull with dasan_request_next. Called under no lock: on a
                              thread of the engine, or inside dasan_engine_step (DRIVE_CALLER) */
  void* user;
  uint64_t client;     /* who asks, by the caller's count: among requests of one priority the
                          client that was served least goes first */
  uint64_t cache_salt; /* KV of prompts is shared among requests of one salt only: give
                          tenants or security grades their own. On a session with a history:
                          that history's, or 0 */
  uint32_t speculate;  /* most tokens guessed ahead and verified in one step, at most 32; 0 =
                          none. The answer is the same to the bit, only sooner where the text
                          repeats itself or its prompt: editing, summarising, code */
  uint32_t n_samples;  /* answers to one prompt, whose KV they share; 0 = 1. Each is a request
                          of its own: the i-th with seed + i, to the bit what it would be
                          alone. Not with a session: fork that */
} dasan_request_params;
#define DASAN_REQUEST_PARAMS_INIT                                                              \
  {                                                                                            \
    (uint32_t)sizeof(dasan_request_params), 0, NULL, NULL, 0, 0, 0, 0, 0, NULL, NULL, 0, NULL, \
        NULL, 0, 0, 0, 0                                                                       \
  }

/* All or nothing: on failure no request was queued. The prompt is copied. `out` receives one
 * request per parameters, or n_samples of them in a row where those ask for more. [any thread] */
DASAN_API dasan_status dasan_submit(dasan_engine* e, const dasan_request_params* const* params,
                                    size_t n, dasan_request** out);
/* Next event; timeout_ms 0 polls, UINT32_MAX waits. DASAN_E_TIMEOUT: none came. After DONE, or on a
 * request with a callback: DASAN_E_STATE. With DRIVE_CALLER it steps the engine while it waits. */
DASAN_API dasan_status dasan_request_next(dasan_request* r, dasan_event* event,
                                          uint32_t timeout_ms);
/* Index of a request that has an event to give. */
DASAN_API dasan_status dasan_wait_any(dasan_request* const* rs, size_t n, uint32_t timeout_ms,
                                      size_t* ready);
/* Sets a flag; honoured at the next step; the stream still ends with DONE. Idempotent, callable
 * from a signal handler. [any thread] */
DASAN_API void dasan_request_cancel(const dasan_request* r);
DASAN_API void dasan_request_release(dasan_request* r); /* cancels if running; its callback has
                                                           returned for good when this returns */

/* What a request went through so far, also after its end. */
typedef struct dasan_timeline {
  uint32_t struct_size;
  uint32_t prompt_tokens, cached_tokens, generated_tokens;
  uint32_t prefill_steps, decode_steps; /* chunks of the prompt, also again after a preemption */
  uint32_t preemptions;                 /* times its pages were taken, to be computed again */
  uint32_t proposed_tokens, accepted_tokens; /* of params.speculate */
  uint32_t pages, most_pages;                /* KV pages held now, and at most */
  uint32_t reserved;
  uint64_t batch_tokens, batch_sequences; /* of its steps, summed: how much company it had */
  double queue_seconds, prefill_seconds, decode_seconds;
} dasan_timeline;
#define DASAN_TIMELINE_INIT \
  { (uint32_t)sizeof(dasan_timeline), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
DASAN_API dasan_status dasan_request_get_timeline(const dasan_request* r, dasan_timeline* out);
typedef struct dasan_step { /* frozen layout */
  double seconds;           /* from submit to the step's end */
  uint32_t tokens;          /* of the request: 1 decodes, more are a chunk or verified guesses */
  uint32_t generated;       /* that came of it */
  uint32_t batch_tokens, batch_sequences; /* of the whole step */
  uint32_t pages;                         /* held by the request */
  uint32_t reserved;
} dasan_step;
/* The steps so far, of a request with DASAN_REQ_STEPS; none without. */
DASAN_API dasan_status dasan_request_steps(const dasan_request* r, dasan_step* steps, size_t cap,
                                           size_t* len);

/* ---- sessions: KV reuse, rewind, fork, save -------------------------------------------------- */

/* A session is busy while a request runs on it; the calls below are then DASAN_E_STATE. */
DASAN_API dasan_status dasan_session_create(dasan_session** out, dasan_engine* e);
DASAN_API dasan_status dasan_session_fork(dasan_session** out,
                                          const dasan_session* s); /* shares pages */
DASAN_API dasan_status dasan_session_rewind(dasan_session* s,
                                            size_t n_tokens); /* keeps the first n */
DASAN_API dasan_status dasan_session_tokens(const dasan_session* s, int32_t* tokens, size_t cap,
                                            size_t* len);
DASAN_API void dasan_session_release(dasan_session* s);

typedef dasan_status (*dasan_write_fn)(void* user, const void* data, size_t size);
typedef dasan_status (*dasan_read_fn)(void* user, void* data, size_t size); /* exactly size bytes */
/* Tokens and KV, versioned, with the model's fingerprint and checksums; restoring computes nothing
 * and continues bit for bit. A snapshot of another model or build is DASAN_E_FORMAT. */
DASAN_API dasan_status dasan_session_save(const dasan_session* s, dasan_write_fn fn, void* user);
DASAN_API dasan_status dasan_session_restore(dasan_session** out, dasan_engine* e, dasan_read_fn fn,
                                             void* user);

/* ---- direct evaluation ----------------------------------------------------------------------- */

enum { DASAN_EVAL_ALL_LOGITS = 1u << 0 };
/* Appends tokens and writes logits of the last one, or of all: row-major (n, n_vocab); cap counts
 * floats. Waits until the engine has run it (steps it with DRIVE_CALLER). */
DASAN_API dasan_status dasan_session_eval(dasan_session* s, const int32_t* tokens, size_t n,
                                          uint32_t flags, float* logits, size_t cap);

typedef struct dasan_score_input { /* frozen layout */
  const int32_t* tokens;
  size_t n_tokens;
  size_t n_context; /* the first n_context (at least 1) are given; the others are scored */
} dasan_score_input;
/* Log-probability of each scored token after all before it: perplexity, classification, choosing
 * among given answers. One float per scored token, input after input; `likeliest` (may be NULL)
 * receives the token the model expected there. cap counts entries of each. [any thread] */
DASAN_API dasan_status dasan_score(dasan_engine* e, const dasan_score_input* inputs, size_t n,
                                   float* logprobs, int32_t* likeliest, size_t cap);

enum { DASAN_POOL_MEAN = 1, DASAN_POOL_CLS = 2, DASAN_POOL_LAST = 3 };
typedef struct dasan_tokens { /* frozen layout */
  const int32_t* data;
  size_t size;
} dasan_tokens;
/* Pooled final hidden states, row-major (n, n_embd), L2-normalised when normalize != 0; cap counts
 * floats. [any thread] */
DASAN_API dasan_status dasan_embed(dasan_engine* e, const dasan_tokens* inputs, size_t n,
                                   int32_t pooling, int32_t normalize, float* out, size_t cap);

#ifdef __cplusplus
}
#endif
#endif /* DASAN_H */
