import { useState } from "react";
import type { FormEvent } from "react";

import { ApiError, post } from "../api/client";
import type { Dataset } from "../api/types";
import { Notice } from "./Notice";

const FIELDS = [
  ["name", "Name", "my-images", "How jobs name it."],
  ["source", "Source", "data/my-images", "The folder's path inside the artifact store, or hf://datasets/org/name@revision."],
] as const;

export function DatasetForm({ onMade }: { onMade: () => void }) {
  const [body, setBody] = useState({ name: "", source: "" });
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const wrong = (name: string): string | undefined => error?.errors.find((e) => e.pointer === `/${name}`)?.detail;

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await post<Dataset>("/v1/datasets", body);
      setBody({ name: "", source: "" });
      onMade();
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setError(cause);
    } finally {
      setBusy(false);
    }
  };

  return (
    <section className="card" aria-labelledby="register-dataset">
      <div className="card-head"><h2 id="register-dataset">Register a dataset</h2></div>
      <form className="stack" onSubmit={(event) => void submit(event)}>
        <p className="quiet">
          Put a folder into the artifact store, or name a dataset of the Hugging Face hub: images (classes are
          sub-folders, captions a metadata.jsonl), WebDataset tars, Parquet, or a .txt of prompts. What it is, is found
          by looking.
        </p>
        <div className="fields">
          {FIELDS.map(([name, label, example, help]) => (
            <div key={name} className="field">
              <label htmlFor={`dataset-${name}`}>{label}</label>
              <input id={`dataset-${name}`} required value={body[name]} placeholder={example}
                aria-invalid={wrong(name) !== undefined}
                onChange={(event) => setBody({ ...body, [name]: event.target.value })} />
              {wrong(name) && <span className="wrong" role="alert">{wrong(name)}</span>}
              <span className="help">{help}</span>
            </div>
          ))}
        </div>
        {!FIELDS.some(([name]) => wrong(name)) && <Notice error={error} />}
        <div className="row">
          <button type="submit" className="button primary" disabled={busy}>Register the dataset</button>
        </div>
      </form>
    </section>
  );
}
