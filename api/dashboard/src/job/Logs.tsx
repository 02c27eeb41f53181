import { useEffect, useRef, useState } from "react";

import { saveBlob } from "../api/client";
import type { LogLine } from "../api/types";
import { DownloadIcon } from "../components/icons";
import { clock, count, plural } from "../format";
import { useLogs } from "./useLogs";

const MOST_SHOWN = 1500;
const LEVELS = ["debug", "info", "warning", "error"];

function asText(line: LogLine): string {
  return `${line.at} ${line.level.padEnd(7)} attempt ${line.attempt} rank ${line.rank}  ${line.message}`;
}

export function Logs({ jobId, live }: { jobId: string; live: boolean }) {
  const lines = useLogs(jobId, live);
  const [least, setLeast] = useState("info");
  const [search, setSearch] = useState("");
  const [follow, setFollow] = useState(true);
  const box = useRef<HTMLDivElement>(null);

  const wanted = search.toLowerCase();
  const matching = lines.filter(
    (line) => LEVELS.indexOf(line.level) >= LEVELS.indexOf(least) && line.message.toLowerCase().includes(wanted),
  );
  const shown = matching.slice(-MOST_SHOWN);

  useEffect(() => {
    const element = box.current;
    if (follow && element) element.scrollTop = element.scrollHeight;
  }, [follow, matching.length]);

  const onScroll = (): void => {
    const element = box.current;
    if (!element) return;
    setFollow(element.scrollHeight - element.scrollTop - element.clientHeight < 24);
  };

  return (
    <section className="card" aria-labelledby="logs">
      <div className="card-head">
        <h2 id="logs">Logs</h2>
        <div className="row">
          <label className="check">
            <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} />
            follow
          </label>
          <button type="button" className="button bare" disabled={lines.length === 0}
            onClick={() => saveBlob(new Blob([lines.map(asText).join("\n")], { type: "text/plain" }), `${jobId}.log`)}>
            <DownloadIcon />
            Download
          </button>
        </div>
      </div>
      <div className="log-tools">
        <input type="search" placeholder="Search" aria-label="Search the log" value={search}
          onChange={(event) => setSearch(event.target.value)} />
        <select aria-label="Least level" value={least} onChange={(event) => setLeast(event.target.value)}>
          <option value="debug">Everything</option>
          <option value="info">Info and above</option>
          <option value="warning">Warnings and errors</option>
          <option value="error">Errors</option>
        </select>
        <span className="small quiet num">
          {matching.length === lines.length
            ? plural(lines.length, "line")
            : `${count(matching.length)} of ${plural(lines.length, "line")}`}
        </span>
      </div>
      <div className="log" ref={box} onScroll={onScroll} role="log" aria-label="Log lines" tabIndex={0}>
        {shown.map((line) => (
          <div key={line.seq} className={line.level} title={`attempt ${line.attempt}, rank ${line.rank}`}>
            <time>{clock(line.at)}</time>
            <span className="level">{line.level}</span>
            <span className="message">{line.message}</span>
          </div>
        ))}
      </div>
    </section>
  );
}
