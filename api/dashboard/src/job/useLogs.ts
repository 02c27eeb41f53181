import { useEffect, useRef, useState } from "react";

import type { LogLine } from "../api/types";
import { events } from "../api/sse";

const MOST_KEPT = 20_000;
const AGAIN_MS = 1500;

/** The job's log so far and as it grows; after a cut the stream goes on behind the last line that came. */
export function useLogs(jobId: string, live: boolean): LogLine[] {
  const [lines, setLines] = useState<LogLine[]>([]);
  const lastId = useRef("");

  useEffect(() => {
    const abort = new AbortController();
    let fresh: LogLine[] = [];
    const flush = (): void => {
      if (fresh.length === 0) return;
      const arrived = fresh;
      fresh = [];
      setLines((old) => {
        const newest = old.at(-1)?.seq ?? 0;
        return [...old, ...arrived.filter((line) => line.seq > newest)].slice(-MOST_KEPT);
      });
    };
    const timer = setInterval(flush, 200);
    const follow = async (): Promise<void> => {
      while (!abort.signal.aborted) {
        try {
          for await (const event of events(`/v1/jobs/${jobId}/logs`, lastId.current, abort.signal)) {
            if (event.event === "end") return;
            if (event.id) lastId.current = event.id;
            fresh.push(JSON.parse(event.data) as LogLine);
          }
        } catch (cause) {
          if (abort.signal.aborted) return;
          console.warn("logs", cause);
        }
        if (!live) return;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    };
    void follow();
    return () => {
      abort.abort();
      clearInterval(timer);
      flush();
    };
  }, [jobId, live]);

  return lines;
}
