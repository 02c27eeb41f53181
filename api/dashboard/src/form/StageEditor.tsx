import { useState } from "react";

import type { Method } from "../api/types";
import { FAMILY_OPTIONS, FamilyMark } from "../components/FamilyMark";
import { Segments } from "../components/Segments";
import type { StageDraft } from "./draft";
import { fieldsOf } from "./fields";
import type { FieldSpec, JsonSchema } from "./fields";
import { SchemaField } from "./SchemaField";

interface Props {
  index: number;
  stage: StageDraft;
  methods: Method[];
  wrong: Record<string, string>;
  onChange: (stage: StageDraft) => void;
  onRemove: (() => void) | null;
}

const NEEDS: Record<string, string> = {
  none: "needs no data",
  images: "needs images",
  pairs: "makes its data, pairs of noise and image, with the teacher",
};

/** The method's own settings first, then those that all methods share. */
function parts(method: Method | undefined, methods: Method[]): FieldSpec[][] {
  if (!method) return [];
  const names = methods.map((m) => Object.keys((m.json_schema as JsonSchema).properties ?? {}));
  const shared = (field: FieldSpec): boolean => names.every((of) => of.includes(field.name));
  const fields = fieldsOf(method.json_schema as JsonSchema);
  return [fields.filter((field) => !shared(field)), fields.filter(shared)];
}

/** One stage: which method, and the method's own settings from its schema. */
export function StageEditor({ index, stage, methods, wrong, onChange, onRemove }: Props) {
  const method = methods.find((m) => m.kind === stage.kind);
  const at = `/stages/${index}/method`;
  const [picked, setFamily] = useState<Method["family"] | null>(null);
  const family = picked ?? method?.family ?? "fidelity";
  return (
    <section className="card" aria-label={`Stage ${index + 1}`}>
      <div className="card-head">
        <h2>{onRemove ? `Stage ${index + 1}` : "Method"}</h2>
        {onRemove && <button type="button" className="button bare" onClick={onRemove}>Remove</button>}
      </div>
      <div className="stack">
        <Segments label="Family" options={FAMILY_OPTIONS} value={family} onChange={setFamily} />
        <div className="method-choice">
          {methods.filter((m) => m.family === family).map((m) => (
            <button key={m.kind} type="button" className="choice" aria-pressed={m.kind === stage.kind}
              onClick={() => onChange({ ...stage, kind: m.kind, values: {} })}>
              <FamilyMark family={m.family} />
              <strong>{m.title}</strong>
              <span className="small quiet">{m.summary}</span>
            </button>
          ))}
        </div>
        {method && (
          <p className="small quiet">
            <a href={`https://arxiv.org/abs/${method.paper.replace("arXiv:", "")}`} target="_blank" rel="noreferrer">
              {method.paper}
            </a>
            , {NEEDS[method.data_need] ?? method.data_need}.
          </p>
        )}
        {wrong[at] !== undefined && <p className="wrong" role="alert">{wrong[at]}</p>}
        {parts(method, methods).map((fields, i) => (
          <div key={i} className="fields">
            {fields.map((field) => (
              <SchemaField key={field.name} field={field} value={stage.values[field.name]}
                wrong={wrong[`${at}/${field.name}`]}
                onChange={(text) => onChange({ ...stage, values: { ...stage.values, [field.name]: text } })} />
            ))}
          </div>
        ))}
      </div>
    </section>
  );
}
