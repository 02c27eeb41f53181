import type { Dataset } from "../api/types";
import type { Draft } from "./draft";

interface Props {
  draft: Draft;
  datasets: Dataset[];
  /** Whether the teacher is asked for images by prompts. */
  text: boolean;
  wrong: Record<string, string>;
  onChange: (draft: Draft) => void;
}

/** What the job learns from, and what a text teacher is asked for. */
export function DataFields({ draft, datasets, text, wrong, onChange }: Props) {
  const known = draft.data === "" || datasets.some((dataset) => dataset.name === draft.data);
  return (
    <>
      <div className="field">
        <label htmlFor="data">Data</label>
        <select id="data" value={draft.data} aria-invalid={wrong["/data"] !== undefined}
          onChange={(event) => onChange({ ...draft, data: event.target.value })}>
          <option value="">none of your own</option>
          {!known && <option>{draft.data}</option>}
          {datasets.map((dataset) => <option key={dataset.id}>{dataset.name}</option>)}
        </select>
        {wrong["/data"] && <span className="wrong" role="alert">{wrong["/data"]}</span>}
        <span className="help">Images to learn from, or captions to ask a text teacher for.</span>
      </div>
      {(text || draft.prompts !== "" || wrong["/prompts"]) && (
        <div className="field">
          <label htmlFor="prompts">Prompts</label>
          <textarea id="prompts" rows={3} value={draft.prompts} aria-invalid={wrong["/prompts"] !== undefined}
            onChange={(event) => onChange({ ...draft, prompts: event.target.value })} />
          {wrong["/prompts"] && <span className="wrong" role="alert">{wrong["/prompts"]}</span>}
          <span className="help">What the teacher is asked for, one in a line; none where the data has captions.</span>
        </div>
      )}
    </>
  );
}
