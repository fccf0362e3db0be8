// Judges HTML by html-validate's rules of syntax: { name: html, … } in, { name: [what is wrong, …], … } out.
// A mail is allowed what mail programs need and browsers do not: layout tables, inline styles, old attributes.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { HtmlValidate, StaticConfigLoader } = createRequire(process.cwd() + "/")("html-validate");

const rules = [
  "attr-case", "attr-delimiter", "attr-quotes", "attr-spacing", "close-attr", "close-order", "doctype-html",
  "element-case", "element-name", "element-permitted-content", "element-permitted-order",
  "element-permitted-parent", "element-required-content", "map-dup-name", "map-id-name", "meta-refresh",
  "missing-doctype", "no-dup-attr", "no-dup-class", "no-dup-id", "no-implicit-close", "no-unknown-elements",
  "no-utf8-bom", "script-element", "unrecognized-char-ref", "valid-id", "void-content",
];
const validator = new HtmlValidate(
  new StaticConfigLoader({ root: true, rules: Object.fromEntries(rules.map((rule) => [rule, "error"])) }),
);
const answer = {};
for (const [name, html] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
  const report = await validator.validateString(html, name);
  answer[name] = report.results.flatMap((result) =>
    result.messages.map((m) => `${m.line}:${m.column} ${m.ruleId}: ${m.message}`),
  );
}
process.stdout.write(JSON.stringify(answer));
