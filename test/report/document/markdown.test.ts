import fc from "fast-check";
import { Marked } from "marked";
import { expect, test } from "vitest";
import { code, codeBlock, table, text } from "../../../src/report/document/markdown.ts";
import { left } from "../../../src/report/text-table.ts";

const marked = new Marked({ gfm: true });

/** What a reader sees of HTML. */
function visible(html: string): string {
  return html
    .replaceAll(/<[^>]*>/g, "")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&")
    .trim();
}

const anything = fc.string({ unit: fc.constantFrom(..."ab0`*_{}[]()<>#|&~!\\+-.:/ '\"") }).map((value) => `x${value}x`);

test("text is read as it was written, whatever is in it", () => {
  fc.assert(
    fc.property(anything, (value) => {
      expect(visible(marked.parse(text(value), { async: false }))).toBe(value.replaceAll(/\s+/g, " "));
    }),
  );
});

test("code is read as it was written, in a table too", () => {
  fc.assert(
    fc.property(anything, (value) => {
      const markdown = table([value], [left("T", code), left("U", () => "end")]);
      const cells = [...marked.parse(markdown, { async: false }).matchAll(/<td>(.*?)<\/td>/gs)].map(([, cell]) =>
        visible(cell ?? ""),
      );
      expect(cells).toEqual([value.replaceAll(/\s+/g, " "), "end"]);
    }),
  );
});

test("a block of code keeps its fences apart from those inside", () => {
  const html = marked.parse(codeBlock("sh", ["echo '```'", "done"]), { async: false });
  expect(visible(html)).toBe("echo '```'\ndone");
});
