import fc from "fast-check";
import { expect, test } from "vitest";
import { InputError } from "../../src/base/errors.ts";
import { cellText, escapeControls, escapeForTerminal, messageLine, quoted, quotedList } from "../../src/base/quoted.ts";
import { formatTable, left } from "../../src/report/text-table.ts";

test("control characters are shown, not obeyed", () => {
  expect(escapeControls("a\u001b[31mb\u0000\n\r\t\u007f\u009b\u202e\u2028\ufeff")).toBe(
    "a\\u001b[31mb\\u0000\\n\\r\\t\\u007f\\u009b\\u202e\\u2028\\ufeff",
  );
  expect(escapeControls("\ud800 \udc00 \u{1f600} é 漢")).toBe("\\ud800 \\udc00 \u{1f600} é 漢");
});

test("JSON stays the same JSON", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const json = JSON.stringify({ text, list: [text] }, null, 2);
      expect(JSON.parse(escapeForTerminal(json))).toEqual(JSON.parse(json));
    }),
  );
});

test("a long value loses its middle, and the sentence around it survives", () => {
  const message = messageLine(`File "a.json": model_type "${"x".repeat(5_000_000)}" is not known; give another`);
  expect(message).toMatch(
    /^File "a\.json": model_type "x{140}… \(4,999,800 more characters\) …x{60}" is not known; give/,
  );
  expect(messageLine("y".repeat(10_000_000)).length).toBeLessThan(2100);
  expect(quoted("z".repeat(1000)).length).toBeLessThan(260);
  expect(quoted({ a: "\u001b" })).toBe('"{"a":"\\u001b"}"');
});

test("quotation marks of a sentence are taken in pairs", () => {
  const sentence = `"a" ${"words ".repeat(60)}"b"`;
  expect(messageLine(sentence)).toBe(sentence);
});

test("lists of names are cut and counted", () => {
  expect(quotedList(["a", "b"])).toBe('"a", "b"');
  expect(
    quotedList(
      Array.from({ length: 1234 }, (_, i) => `c${i}`),
      2,
    ),
  ).toBe('"c0", "c1" and 1,232 more');
});

test("no known error carries what a terminal obeys, in its message or its hint", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 4000 }), (text) => {
      const { message, hint } = new InputError(`bad ${text}`, { hint: text });
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      for (const line of [message, hint ?? ""]) expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
    }),
  );
});

test("a cell of a table is one line", () => {
  const table = formatTable(["a\nb\u001b[2J"], [left("task", (name) => name), left("n", () => "1")]);
  expect(table).toBe("task           n\na\\nb\\u001b[2J  1");
  expect(cellText("q".repeat(100_000)).length).toBeLessThan(460);
});
