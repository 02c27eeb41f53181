import { Fragment } from "react";

import { ArrowIcon } from "./icons";

/** Teacher, then the method of each stage. */
export function Flow({ teacher, methods }: { teacher: string; methods: string[] }) {
  return (
    <span className="flow">
      <span className="chip teacher">{teacher}</span>
      {methods.map((method, i) => (
        <Fragment key={i}>
          <ArrowIcon />
          <span className="chip student">{method}</span>
        </Fragment>
      ))}
    </span>
  );
}
