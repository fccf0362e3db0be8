// Reads mails by npm's mailparser: [base64, …] in, what a receiver would see of each out.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { simpleParser } = createRequire(process.cwd() + "/")("mailparser");

const people = (field) =>
  (field ? [field].flat() : []).flatMap((part) =>
    part.value.flatMap((one) => (one.group ? one.group : [one]).map((box) => [box.address, box.name])),
  );
const answer = [];
for (const mail of JSON.parse(readFileSync(0, "utf8"))) {
  const found = await simpleParser(Buffer.from(mail, "base64"), { skipTextToHtml: true, skipHtmlToText: true, skipTextLinks: true, skipImageLinks: true, keepCidLinks: true });
  answer.push({
    headers: found.headerLines.map((line) => line.line.split(":")[0]),
    from: people(found.from),
    to: people(found.to),
    cc: people(found.cc),
    bcc: people(found.bcc),
    replyTo: people(found.replyTo),
    subject: found.subject ?? "",
    messageId: found.messageId,
    text: found.text ?? null,
    html: found.html || null,
    attachments: found.attachments.map((file) => ({
      name: file.filename ?? null,
      type: file.contentType,
      cid: file.cid ?? null,
      related: file.related ?? false,
      sha256: createHash("sha256").update(file.content).digest("hex"),
    })),
  });
}
process.stdout.write(JSON.stringify(answer));
