import { useState } from "react";

import { CopyIcon } from "./icons";

async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without HTTPS browsers offer no clipboard but this one.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function Snippet({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const onCopy = async (): Promise<void> => {
    await copy(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <div className="snippet">
      <div className="snippet-head">
        <span>{label}</span>
        <button type="button" className="button bare" aria-label={`Copy: ${label}`} onClick={() => void onCopy()}>
          <CopyIcon />
          {copied ? "Copied" : "Copy"}
        </button>
      </div>
      <pre aria-label={label} tabIndex={0}>{text}</pre>
    </div>
  );
}
