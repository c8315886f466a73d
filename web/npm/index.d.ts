/** A message of a conversation. */
export interface Message {
  role: "system" | "user" | "assistant" | (string & {});
  content: string;
}

/** How tokens are chosen; what is left out is the model's default. `temperature: 0` takes the likeliest always. */
export interface Settings {
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  typical_p?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  /** The same seed gives the same text; without one each text is another. */
  seed?: number;
  max_tokens?: number;
  /** Tell every token's log-probability, and those of the `top_logprobs` likeliest (at most 20). */
  logprobs?: boolean;
  top_logprobs?: number;
  /** Go on after the model has ended. */
  ignore_eos?: boolean;
}

export interface Likely {
  id: number;
  logprob: number;
  piece: string | null;
}

/** A token; `text` is what became whole with it and may be empty. */
export interface Token {
  id: number;
  text: string;
  logprob?: number;
  piece?: string | null;
  top?: Likely[];
}

/** What happened in a step: exactly one of these is there. */
export interface Event {
  /** More of the prompt was read. */
  reading?: { cached: number; read: number };
  /** The prompt was read; `cached` of its tokens were known from the text before. */
  read?: { cached: number };
  token?: Token;
  /** The text has ended; `text` is the rest of it. */
  done?: { reason: "stop" | "length"; text: string; token?: { id: number } };
}

export interface Facts {
  name: string;
  /** Tokens of one text here, prompt and answer; and as many as the model could hold. */
  context: number;
  model_context: number;
  vocabulary: number;
  layers: number;
  /** Whether it has a format of conversations. */
  chat: boolean;
  /** `wasm-simd128` or `wasm-relaxed`. */
  cpu: string;
  threads: number;
  /** From the call of `load` on; and of the engine alone, once the file was there. */
  seconds: number;
  load_seconds: number;
  warnings: string[];
  sampling: { temperature: number; top_k: number; top_p: number; min_p: number; repeat_penalty: number };
}

export interface LoadOptions {
  /** As many as the device has cores, up to 8, unless told. More than one where the page is cross-origin isolated only. */
  threads?: number;
  /** Tokens of one text; the model's own, up to 4096, unless told. */
  context?: number;
  /** The name in messages; the file's unless told. */
  name?: string;
  /** The instruction set; the best that the browser has unless told. The tokens are the same. */
  set?: "simd128" | "relaxed";
  onProgress?: (progress: { loaded: number; total: number }) => void;
}

export interface WriteOptions {
  signal?: AbortSignal;
}

/** A model in a worker of its own. It writes one text at a time: beginning another ends the one before. */
export interface Tern {
  readonly facts: Facts;
  /** The engine's memory in bytes, as of the last answer. */
  readonly bytes: number;
  /** False once the worker has ended. */
  readonly alive: boolean;
  encode(text: string): Promise<Uint32Array>;
  encodeChat(messages: Message[]): Promise<Uint32Array>;
  decode(ids: ArrayLike<number>): Promise<string>;
  write(ids: ArrayLike<number>, settings?: Settings, options?: WriteOptions): AsyncGenerator<Event, void>;
  generate(text: string, settings?: Settings, options?: WriteOptions): AsyncGenerator<Event, void>;
  chat(messages: Message[], settings?: Settings, options?: WriteOptions): AsyncGenerator<Event, void>;
  close(): void;
}

/** Loads a GGUF: from an address, a file that was picked or dropped, or bytes. */
export function load(source: string | URL | Blob | ArrayBuffer | Uint8Array, options?: LoadOptions): Promise<Tern>;
