import { useId } from "react";

import type { FieldSpec } from "./fields";

interface Props {
  field: FieldSpec;
  value: string | undefined;
  wrong: string | undefined;
  onChange: (text: string) => void;
}

const SPELT: Record<string, string> = { ema: "EMA", gan: "GAN", lora: "LoRA", cpus: "CPUs", gpus: "GPUs" };

function label(name: string): string {
  const words = name.split("_").map((word) => SPELT[word] ?? word).join(" ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function range(field: FieldSpec): string {
  const { min, max } = field;
  if (min === undefined || max === undefined) return "";
  return `${field.openMin ? "above " : ""}${min} to ${field.openMax ? "below " : ""}${max}`;
}

/** One field of a JSON Schema with its help, its limits and what is wrong with it. */
export function SchemaField({ field, value, wrong, onChange }: Props) {
  const id = useId();
  const shown = value ?? field.fallback;
  const told = { id, "aria-invalid": wrong !== undefined, "aria-describedby": `${id}-help`, title: range(field) };
  const numeric = field.kind === "integer" || field.kind === "number";
  return (
    <div className="field">
      <label htmlFor={id}>{label(field.name)}</label>
      {field.kind === "boolean" && (
        <input {...told} type="checkbox" checked={shown === "true"}
          onChange={(event) => onChange(String(event.target.checked))} />
      )}
      {field.kind === "choice" && (
        <select {...told} value={shown} onChange={(event) => onChange(event.target.value)}>
          {field.choices.map((choice) => <option key={choice}>{choice}</option>)}
        </select>
      )}
      {numeric && (
        <input {...told} type="number" inputMode="decimal" name={field.name} value={shown} min={field.min}
          max={field.max} step={field.kind === "integer" ? 1 : "any"}
          onChange={(event) => onChange(event.target.value)} />
      )}
      {(field.kind === "text" || field.kind === "json") && (
        <input {...told} type="text" name={field.name} value={shown}
          onChange={(event) => onChange(event.target.value)} />
      )}
      {wrong !== undefined && <span className="wrong" role="alert">{wrong}</span>}
      <span className="help" id={`${id}-help`}>{field.help}</span>
    </div>
  );
}
