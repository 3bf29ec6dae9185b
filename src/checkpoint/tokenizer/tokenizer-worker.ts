/**
 * The thread that runs what a checkpoint's tokenizer.json and chat template say: regular expressions and templates of a
 * stranger, which may never end. `tokenizer-thread.ts` is its other end, and ends it.
 */
import { type MessagePort, workerData } from "node:worker_threads";
import { Template } from "@huggingface/jinja";
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import type { TokenizerCalls, TokenizerReply, TokenizerRequest, TokenizerStart } from "./tokenizer-thread.ts";

const { port, signal, tokenizer, config } = workerData as TokenizerStart & { port: MessagePort };
let hub: HubTokenizer | undefined;

const calls: TokenizerCalls = {
  load: () => {
    hub = new HubTokenizer(JSON.parse(tokenizer), config);
    return true;
  },
  encode,
  encodeAll: (texts) => texts.map((text) => encode(text, true)),
  decode: (ids, { skipsSpecial, cleansBlanks }) =>
    loaded().decode([...ids], { skip_special_tokens: skipsSpecial, clean_up_tokenization_spaces: cleansBlanks }),
  idOf: (token) => loaded().token_to_id(token),
  render: (template, names) => new Template(template).render({ ...names }),
};

function encode(text: string, special: boolean): Int32Array {
  const { ids } = loaded().encode(text, { add_special_tokens: special });
  if (!ids.every(Number.isInteger)) throw new Error("a part of the text has no token in the vocabulary");
  return Int32Array.from(ids);
}

function loaded(): HubTokenizer {
  if (hub === undefined) throw new Error("the tokenizer is not loaded");
  return hub;
}

port.on("message", ({ call, input }: TokenizerRequest) => {
  let reply: TokenizerReply;
  try {
    reply = { value: (calls[call] as (...input: unknown[]) => unknown)(...input) };
  } catch (error) {
    reply = { failure: error instanceof Error ? error.message : String(error) };
  }
  port.postMessage(reply);
  // The other end sleeps until then: it has no turn of its event loop in which it could hear the message.
  Atomics.store(signal, 0, 1);
  Atomics.notify(signal, 0);
});
