import { useEffect } from "react";
import type { ReactNode } from "react";

interface Props {
  title: string;
  lead?: ReactNode;
  crumbs?: ReactNode;
  children?: ReactNode;
}

/** The page's heading, its browser title, and its actions at the right. */
export function PageHead({ title, lead, crumbs, children }: Props) {
  useEffect(() => {
    document.title = `${title} · Fewstep`;
  }, [title]);
  return (
    <div className="head">
      <div className="head-text">
        {crumbs && <div className="crumbs">{crumbs}</div>}
        <h1>{title}</h1>
        {lead && <div className="quiet">{lead}</div>}
      </div>
      {children && <div className="row">{children}</div>}
    </div>
  );
}
