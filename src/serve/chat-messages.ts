/** Messages of a chat, and their ids. */
import { z } from "zod";
import type { ChatMessage } from "../checkpoint/tokenizer/tokenizer.ts";
import { ApiError } from "./api-error.ts";
import type { ServerContext } from "./server-context.ts";

const contentPart = z.object({
  type: z.literal("text", "must be text: this server reads no images"),
  text: z.string(),
});

const message = z
  .object({
    role: z.enum(["system", "developer", "user", "assistant"], "must be system, user or assistant"),
    content: z.union([z.string(), z.array(contentPart)], "must be a text, or a list of parts of type text"),
  })
  .transform(
    ({ role, content }): ChatMessage => ({
      // Newer clients call the system's message the developer's; templates know the former.
      role: role === "developer" ? "system" : role,
      content: typeof content === "string" ? content : content.map(({ text }) => text).join(""),
    }),
  );

export const chatMessages = z.array(message).min(1, "must hold at least one message");

/** Further names that a template knows, such as `enable_thinking`. */
export const templateVariables = z.record(z.string(), z.unknown()).nullish();

/** Ids of a chat after the model's own template. */
export function chatIds(
  { runner }: ServerContext,
  messages: readonly ChatMessage[],
  fields: {
    add_generation_prompt?: boolean | null | undefined;
    chat_template_kwargs?: Record<string, unknown> | null | undefined;
  },
): number[] {
  const { tokenizer } = runner;
  if (tokenizer === undefined) throw new ApiError(400, "The model has no tokenizer: it cannot chat", "messages");
  const variables = { ...fields.chat_template_kwargs };
  if (fields.add_generation_prompt === false) variables.add_generation_prompt = false;
  return tokenizer.encodeRendered(tokenizer.renderChat(messages, { variables }));
}
