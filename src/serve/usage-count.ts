/** Tokens of one request, as `usage` tells them. */
export class UsageCount {
  #prompt = 0;
  #completion = 0;
  #reused = 0;

  /**
   * @param first false for a further continuation of a prompt that is counted already
   * @param reused rows of the prompt that came from an earlier request
   */
  add({ ids }: { ids: readonly number[] }, first: boolean, reused: number, generated: number): void {
    if (first) {
      this.#prompt += ids.length;
      this.#reused += reused;
    }
    this.#completion += generated;
  }

  addTokens(generated: number): void {
    this.#completion += generated;
  }

  fields() {
    return {
      prompt_tokens: this.#prompt,
      completion_tokens: this.#completion,
      total_tokens: this.#prompt + this.#completion,
      prompt_tokens_details: { cached_tokens: this.#reused },
    };
  }
}
