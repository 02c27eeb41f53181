/** Server-sent events over fetch, since EventSource can send no Authorization header. */

import { send } from "./client";

export interface ServerEvent {
  id: string;
  event: string;
  data: string;
}

function parse(block: string): ServerEvent | null {
  const parsed: ServerEvent = { id: "", event: "message", data: "" };
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const field = line.slice(0, at);
    const value = line.slice(at + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "id" || field === "event") parsed[field] = value;
  }
  if (data.length === 0) return null;
  parsed.data = data.join("\n");
  return parsed;
}

/** Yields events until the server ends the stream; ask again with the last id to go on where it ended. */
export async function* events(path: string, lastId: string, signal: AbortSignal): AsyncGenerator<ServerEvent> {
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (lastId) headers["Last-Event-ID"] = lastId;
  const response = await send(path, { headers, signal });
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    pending = (pending + value).replaceAll("\r\n", "\n");
    const blocks = pending.split("\n\n");
    pending = blocks.pop() ?? "";
    for (const block of blocks) {
      const parsed = parse(block);
      if (parsed) yield parsed;
    }
  }
}
