// What the dashboard has to be, in the types of Grafana. They leave the options of panels open, so these are put in.
import type { Dashboard, FieldConfig, FieldConfigSource, Panel } from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the values of enumerations, not their names.
type Plain<T> = unknown extends T
  ? T
  : T extends string
    ? string extends T
      ? string
      : `${T}`
    : T extends number
      ? number extends T
        ? number
        : `${T}` extends `${infer N extends number}`
          ? N
          : never
      : T extends boolean | null | undefined
        ? T
        : T extends (infer Item)[]
          ? Plain<Item>[]
          : { [Key in keyof T]: Plain<T[Key]> };

interface Query {
  refId: string;
  datasource: { type: 'prometheus'; uid: string };
  editorMode: 'code';
  expr: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
  format?: 'table' | 'time_series' | 'heatmap';
}

type PanelOf<Kind extends string, Options, Custom> = Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Kind;
  options: Options;
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> } };
  targets: Query[];
};

export type Checked = Plain<
  Omit<Dashboard, 'panels'> & {
    panels: (
      | PanelOf<'stat', stat.Options, never>
      | PanelOf<'table', Partial<table.Options>, table.FieldConfig>
      | PanelOf<'timeseries', timeseries.Options, timeseries.FieldConfig>
    )[];
  }
>;
