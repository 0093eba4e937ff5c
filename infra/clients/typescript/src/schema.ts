/** Drawn from /openapi.json by `make client-schema`; changes are made there. */

export interface paths {
    "/v1/loops": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List the loops */
        get: operations["listLoops"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/loops/{loop}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Describe a loop: settings, versions, guard, counters */
        get: operations["describeLoop"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/loops/{loop}/decide": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Choose one action, or one for each slot */
        post: operations["decide"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/loops/{loop}/decide/batch": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Decide many questions, each answered or refused on its own */
        post: operations["decideBatch"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/loops/{loop}/outcomes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Report what happened after decisions */
        post: operations["reportOutcomes"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/loops/{loop}/activate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Activate a deferred decision */
        post: operations["activate"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/decisions/{event_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Explain a decision and repeat its draw */
        get: operations["explainDecision"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * DecideRequest
         * @description A question: which of these actions in this context?
         *
         *         Attributes:
         *             context: JSON object of features.
         *             actions: what may be chosen, in the application's order.
         *             event_id: the decision's id; a UUIDv7 when absent.
         *             excluded_actions: ids that may not be chosen this time.
         *             subject_id: whom it is for; key of the online features.
         *             episode_id: session it belongs to.
         *             step: 0-based position in the session.
         *             deferred: counts only once activated; the loop's setting when absent.
         *             slots: positions to fill one after another, each action at most once.
         */
        DecideRequest: {
            /** @description JSON object of features. */
            context: {
                [key: string]: unknown;
            };
            /** @description What may be chosen, in the application's order. */
            actions: components["schemas"]["Action"][];
            /** @description The decision's id; a UUIDv7 when absent. */
            event_id?: string | null;
            /** @description Ids that may not be chosen this time. */
            excluded_actions?: string[];
            /** @description Whom it is for; key of the online features. */
            subject_id?: string | null;
            /** @description Session it belongs to. */
            episode_id?: string | null;
            /** @description 0-based position in the session. */
            step?: number | null;
            /** @description Counts only once activated; the loop's setting when absent. */
            deferred?: boolean | null;
            /** @description Positions to fill one after another, each action at most once. */
            slots?: components["schemas"]["Slot"][] | null;
        };
        /**
         * Action
         * @description An action as offered.
         *
         *         Attributes:
         *             id: its id, unique in the request.
         *             features: JSON object of features.
         */
        Action: {
            /** @description Its id, unique in the request. */
            id: string;
            /** @description JSON object of features. */
            features?: {
                [key: string]: unknown;
            };
        };
        /**
         * Slot
         * @description A position to fill.
         *
         *         Attributes:
         *             id: its id, unique in the request.
         *             features: JSON object of features.
         *             excluded_actions: ids that may not stand here.
         *             baseline_action: the application's own choice, an id of `actions`: what the baseline `first` takes here, as long
         *                 as no earlier slot has it; the first action offered when absent.
         */
        Slot: {
            /** @description Its id, unique in the request. */
            id: string;
            /** @description JSON object of features. */
            features?: {
                [key: string]: unknown;
            };
            /** @description Ids that may not stand here. */
            excluded_actions?: string[];
            /** @description The application's own choice, an id of `actions`: what the baseline `first` takes here, as long as no earlier slot has it; the first action offered when absent. */
            baseline_action?: string | null;
        };
        /**
         * BatchRequest
         * @description Many questions; each is answered or refused on its own.
         */
        BatchRequest: {
            decisions: components["schemas"]["DecideRequest"][];
        };
        /**
         * OutcomeRequest
         * @description Something that happened after a decision.
         *
         *         Attributes:
         *             event_id: the decision it belongs to.
         *             value: the number reported.
         *             slot: slot of a multi-slot decision.
         *             name: ``reward`` or the application's own.
         *             idempotency_key: reports that share it count once.
         *             ts: when it happened, RFC 3339 with offset; now when absent.
         *             action_id: the action that it followed, as the decision's answer named it; it counts for no other.
         */
        OutcomeRequest: {
            /** @description The decision it belongs to. */
            event_id: string;
            /** @description The number reported. */
            value: number;
            /** @description Slot of a multi-slot decision. */
            slot?: string;
            /** @description ``reward`` or the application's own. */
            name?: string;
            /** @description Reports that share it count once. */
            idempotency_key?: string | null;
            /** @description When it happened, RFC 3339 with offset; now when absent. */
            ts?: string | null;
            /** @description The action that it followed, as the decision's answer named it; it counts for no other. */
            action_id?: string | null;
        };
        /**
         * ActivateRequest
         * @description The deferred decision was used after all; `action_id` as in `OutcomeRequest`.
         */
        ActivateRequest: {
            event_id: string;
            slot?: string;
            action_id?: string | null;
        };
        /**
         * LoopNames
         * @description Names of the installation's loops.
         */
        LoopNames: {
            loops: string[];
        };
        /**
         * LoopDescription
         * @description A loop as it runs.
         *
         *         Attributes:
         *             loop: its name.
         *             settings: as read from its file.
         *             policy_version: version in charge, or the baseline's name.
         *             baseline_version: the reference.
         *             candidate_version: version being rolled out, if any.
         *             guard: the guard's state.
         *             error: why the loop does not run as its settings and registry say, if so.
         *             process: what the answering process did.
         *             counters: the lake's counters; null while there is no lake, or no moment at which its tables stood still.
         *             agreement: in apprentice mode, how often the newest version would have done what the application did, as the
         *                 last night found; null otherwise.
         */
        LoopDescription: {
            /** @description Its name. */
            loop: string;
            /** @description As read from its file. */
            settings: {
                [key: string]: unknown;
            };
            /** @description Version in charge, or the baseline's name. */
            policy_version: string;
            /** @description The reference. */
            baseline_version: string;
            /** @description Version being rolled out, if any. */
            candidate_version: string | null;
            /** @description The guard's state. */
            guard: components["schemas"]["GuardDescription"];
            /** @description Why the loop does not run as its settings and registry say, if so. */
            error: string | null;
            /** @description What the answering process did. */
            process: components["schemas"]["ProcessCounts"];
            /** @description The lake's counters; null while there is no lake, or no moment at which its tables stood still. */
            counters: {
                [key: string]: unknown;
            } | null;
            /** @description In apprentice mode, how often the newest version would have done what the application did, as the last night found; null otherwise. */
            agreement: components["schemas"]["Agreement"] | null;
        };
        /**
         * GuardDescription
         * @description A loop's guard.
         *
         *         Attributes:
         *             weight: the candidate's share now; the largest, where segments have shares of their own.
         *             published_weight: the largest share as published.
         *             version: version of the published snapshot; 0 without one.
         *             segments: shares by segment.
         */
        GuardDescription: {
            /** @description The candidate's share now; the largest, where segments have shares of their own. */
            weight: number;
            /** @description The largest share as published. */
            published_weight: number;
            /** @description Version of the published snapshot; 0 without one. */
            version: number;
            /** @description Shares by segment. */
            segments?: {
                [key: string]: number;
            } | null;
        };
        /**
         * ProcessCounts
         * @description What the answering process did in a loop since it started; `doubtful` outcomes by the field in doubt.
         */
        ProcessCounts: {
            decided: number;
            repeated: number;
            outcomes: number;
            fallbacks: number;
            spool_depth: number;
            doubtful?: {
                [key: string]: number;
            };
        };
        /**
         * Agreement
         * @description A version's agreement with what was drawn.
         *
         *         Attributes:
         *             version: the version.
         *             decisions: how many were looked at; it did not learn from them.
         *             share: of them whose action is the best to the version; of k that are equally good each counts 1 / k.
         *             low: lower end of the 95% interval.
         *             high: upper end.
         */
        Agreement: {
            /** @description The version. */
            version: string;
            /** @description How many were looked at; it did not learn from them. */
            decisions: number;
            /** @description Of them whose action is the best to the version; of k that are equally good each counts 1 / k. */
            share: number;
            /** @description Lower end of the 95% interval. */
            low: number;
            /** @description Upper end. */
            high: number;
        };
        /**
         * DecideResponse
         * @description The answer.
         *
         *         Attributes:
         *             event_id: the decision's id.
         *             action_id: the action drawn (of the first slot, when there are several).
         *             propensity: the exact probability with which it was drawn.
         *             ranking: the drawn action first, the others by probability.
         *             policy_version: version in charge when it was drawn.
         *             mode: the loop's mode.
         *             slots: every slot's draw, for multi-slot requests.
         */
        DecideResponse: {
            /** @description The decision's id. */
            event_id: string;
            /** @description The action drawn (of the first slot, when there are several). */
            action_id: string;
            /** @description The exact probability with which it was drawn. */
            propensity: number;
            /** @description The drawn action first, the others by probability. */
            ranking: components["schemas"]["Ranked"][];
            /** @description Version in charge when it was drawn. */
            policy_version: string;
            /** @description The loop's mode. */
            mode: string;
            /** @description Every slot's draw, for multi-slot requests. */
            slots?: components["schemas"]["SlotAnswer"][] | null;
        };
        /**
         * Ranked
         * @description An action with its probability of being drawn.
         */
        Ranked: {
            id: string;
            probability: number;
        };
        /**
         * SlotAnswer
         * @description What was drawn for one slot.
         */
        SlotAnswer: {
            id: string;
            action_id: string;
            propensity: number;
            ranking: components["schemas"]["Ranked"][];
        };
        /**
         * BatchResponse
         * @description The answers in the order of the questions; a problem document where one was refused.
         */
        BatchResponse: {
            decisions: (components["schemas"]["DecideResponse"] | components["schemas"]["Problem"])[];
        };
        /**
         * Accepted
         * @description How many reports are on disk now.
         */
        Accepted: {
            accepted: number;
        };
        /**
         * Explanation
         * @description How the decisions under an event id came about, and what was reported of them.
         *
         *         Attributes:
         *             event_id: the id.
         *             loop: the loop.
         *             decisions: one record, or one for each slot.
         *             outcomes: reports, in the order in which they arrived.
         */
        Explanation: {
            /** @description The id. */
            event_id: string;
            /** @description The loop. */
            loop: string;
            /** @description One record, or one for each slot. */
            decisions: components["schemas"]["ExplainedDecision"][];
            /** @description Reports, in the order in which they arrived. */
            outcomes: components["schemas"]["Outcome"][];
        };
        /**
         * ExplainedDecision
         * @description A decision record with what it leads to when it is computed once more.
         *
         *         Attributes:
         *             action_id: id of the action drawn.
         *             scores: [k] expected rewards; None where the version is gone or gives none.
         *             redrawn_index: index that the record's distribution and seed draw now.
         *             draw_matches: whether that is the logged action at the logged propensity.
         *             pmf_recomputed_equal: whether the version gives the same distribution again; None where it cannot be asked.
         *             cap: the version's: no probability is more than cap + 1 times its trusted one; None without a cap.
         *             pmf_uncapped: [k] what the version says before its cap; None without one.
         *             pmf_trusted: [k] what it says without a look at the features that the caller supplies; None without a cap.
         */
        ExplainedDecision: {
            /** @description Version of this record's schema. */
            schema_version: number;
            /** @description Name of the decision point. */
            loop: string;
            /** @description The decision's id; also seeds the draw. */
            event_id: string;
            /** @description Id of the slot in a multi-slot decision, "" otherwise. */
            slot?: string;
            /** @description When the decision was made, UTC. */
            ts: string;
            /** @description Whom it was made for; key of the online features. */
            subject_id?: string | null;
            /** @description Episode the decision belongs to. */
            episode_id?: string | null;
            /** @description 0-based position in its episode. */
            step?: number | null;
            /** @description JSON object of context features, as offered. */
            context: {
                [key: string]: unknown;
            };
            /** @description JSON list of the eligible actions' feature objects, in the order offered. */
            actions: {
                [key: string]: unknown;
            }[];
            /** @description [k] ids of the eligible actions, in the order offered. */
            action_ids: string[];
            /** @description [k] distribution the action was drawn from; sums to 1. */
            pmf: number[];
            /** @description 0-based index of the drawn action. */
            action_index: number;
            /** @description ``pmf[action_index]``, in (0, 1]. */
            propensity: number;
            /** @description [k] the reference's distribution, when it was computed. */
            pmf_baseline?: number[] | null;
            /** @description [k] the candidate's distribution, when one is being rolled out. */
            pmf_candidate?: number[] | null;
            /** @description Share rho of the candidate in `pmf`, in [0, 1]. */
            guard_weight?: number;
            /** @description Version of the guard snapshot in force; 0 without a guard. */
            guard_version?: number;
            /**
             * @description ``online`` (drawn action returned), ``apprentice`` or ``logging_only`` (baseline returned).
             * @enum {unknown}
             */
            mode?: "apprentice" | "logging_only" | "online";
            /** @description Counts only once activated. */
            deferred?: boolean;
            /** @description Registry version of the policy in charge. */
            policy_version: string;
            /** @description Registry version of the reference. */
            baseline_version: string;
            /** @description JSON object of the features looked up for this decision. */
            feature_snapshot?: {
                [key: string]: unknown;
            };
            /** @description 53-bit seed of the draw. */
            seed: number;
            /** @description Probability with which this record was kept; 1 unless sampled down. */
            pass_probability?: number;
            /** @description Of the loop's settings in State that were in force; 0 where they are a file. */
            settings_version?: number;
            /** @description Id of the action drawn. */
            action_id: string;
            /** @description [k] expected rewards; None where the version is gone or gives none. */
            scores: number[] | null;
            /** @description Index that the record's distribution and seed draw now. */
            redrawn_index: number;
            /** @description Whether that is the logged action at the logged propensity. */
            draw_matches: boolean;
            /** @description Whether the version gives the same distribution again; None where it cannot be asked. */
            pmf_recomputed_equal: boolean | null;
            /** @description The version's: no probability is more than cap + 1 times its trusted one; None without a cap. */
            cap: number | null;
            /** @description [k] what the version says before its cap; None without one. */
            pmf_uncapped: number[] | null;
            /** @description [k] what it says without a look at the features that the caller supplies; None without a cap. */
            pmf_trusted: number[] | null;
        };
        /**
         * Outcome
         * @description Something that happened after a decision, as reported.
         *
         *         Attributes:
         *             schema_version: version of this record's schema.
         *             loop: name of the decision point.
         *             event_id: the decision it belongs to.
         *             slot: slot of a multi-slot decision, "" otherwise.
         *             name: ``reward``, ``activation`` or the application's own.
         *             value: the number reported; finite.
         *             ts: when it happened, UTC.
         *             idempotency_key: reports that share it with the same event, slot and name count once.
         *             action_id: the action that it followed; it counts for no other. None: whatever the decision was.
         */
        Outcome: {
            /** @description Version of this record's schema. */
            schema_version: number;
            /** @description Name of the decision point. */
            loop: string;
            /** @description The decision it belongs to. */
            event_id: string;
            /** @description Slot of a multi-slot decision, "" otherwise. */
            slot?: string;
            /** @description ``reward``, ``activation`` or the application's own. */
            name?: string;
            /** @description The number reported; finite. */
            value: number;
            /** @description When it happened, UTC. */
            ts: string;
            /** @description Reports that share it with the same event, slot and name count once. */
            idempotency_key?: string | null;
            /** @description The action that it followed; it counts for no other. None: whatever the decision was. */
            action_id?: string | null;
        };
        /**
         * Problem
         * @description RFC 9457 problem document.
         */
        Problem: {
            type: string;
            title: string;
            status: number;
            detail: string;
            field?: string | null;
            wanted?: string | null;
            got?: string | null;
        };
    };
    responses: {
        /** @description A problem document (RFC 9457) that names the field at fault */
        Problem: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
    };
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    listLoops: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "loops": [
                     *         "news"
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["LoopNames"];
                };
            };
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
    describeLoop: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                loop: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "loop": "news",
                     *       "settings": {
                     *         "name": "news"
                     *       },
                     *       "policy_version": "3",
                     *       "baseline_version": "baseline:uniform",
                     *       "candidate_version": null,
                     *       "guard": {
                     *         "weight": 0,
                     *         "published_weight": 0,
                     *         "version": 0
                     *       },
                     *       "error": null,
                     *       "process": {
                     *         "decided": 812,
                     *         "repeated": 0,
                     *         "outcomes": 640,
                     *         "fallbacks": 0,
                     *         "spool_depth": 0,
                     *         "doubtful": {}
                     *       },
                     *       "counters": null,
                     *       "agreement": null
                     *     }
                     */
                    "application/json": components["schemas"]["LoopDescription"];
                };
            };
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            422: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
    decide: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                loop: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "context": {
                 *         "hour": 9
                 *       },
                 *       "actions": [
                 *         {
                 *           "id": "a"
                 *         },
                 *         {
                 *           "id": "b",
                 *           "features": {
                 *             "price": 3.5
                 *           }
                 *         }
                 *       ]
                 *     }
                 */
                "application/json": components["schemas"]["DecideRequest"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "event_id": "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e",
                     *       "action_id": "b",
                     *       "propensity": 0.5,
                     *       "ranking": [
                     *         {
                     *           "id": "b",
                     *           "probability": 0.5
                     *         },
                     *         {
                     *           "id": "a",
                     *           "probability": 0.5
                     *         }
                     *       ],
                     *       "policy_version": "baseline:uniform",
                     *       "mode": "online"
                     *     }
                     */
                    "application/json": components["schemas"]["DecideResponse"];
                };
            };
            400: components["responses"]["Problem"];
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            408: components["responses"]["Problem"];
            409: components["responses"]["Problem"];
            410: components["responses"]["Problem"];
            413: components["responses"]["Problem"];
            422: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
    decideBatch: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                loop: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "decisions": [
                 *         {
                 *           "context": {
                 *             "hour": 9
                 *           },
                 *           "actions": [
                 *             {
                 *               "id": "a"
                 *             },
                 *             {
                 *               "id": "b",
                 *               "features": {
                 *                 "price": 3.5
                 *               }
                 *             }
                 *           ]
                 *         }
                 *       ]
                 *     }
                 */
                "application/json": components["schemas"]["BatchRequest"];
            };
        };
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "decisions": [
                     *         {
                     *           "event_id": "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e",
                     *           "action_id": "b",
                     *           "propensity": 0.5,
                     *           "ranking": [
                     *             {
                     *               "id": "b",
                     *               "probability": 0.5
                     *             },
                     *             {
                     *               "id": "a",
                     *               "probability": 0.5
                     *             }
                     *           ],
                     *           "policy_version": "baseline:uniform",
                     *           "mode": "online"
                     *         }
                     *       ]
                     *     }
                     */
                    "application/json": components["schemas"]["BatchResponse"];
                };
            };
            400: components["responses"]["Problem"];
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            408: components["responses"]["Problem"];
            413: components["responses"]["Problem"];
            422: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
    reportOutcomes: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                loop: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "event_id": "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e",
                 *       "value": 1
                 *     }
                 */
                "application/json": components["schemas"]["OutcomeRequest"][] | components["schemas"]["OutcomeRequest"];
            };
        };
        responses: {
            /** @description Done */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "accepted": 1
                     *     }
                     */
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            400: components["responses"]["Problem"];
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            408: components["responses"]["Problem"];
            413: components["responses"]["Problem"];
            422: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
    activate: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                loop: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "event_id": "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e"
                 *     }
                 */
                "application/json": components["schemas"]["ActivateRequest"];
            };
        };
        responses: {
            /** @description Done */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "accepted": 1
                     *     }
                     */
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            400: components["responses"]["Problem"];
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            408: components["responses"]["Problem"];
            413: components["responses"]["Problem"];
            422: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
    explainDecision: {
        parameters: {
            query?: {
                /** @description Whose decision; that of the first loop that decided it if left out */
                loop?: string;
            };
            header?: never;
            path: {
                event_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Done */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "event_id": "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e",
                     *       "loop": "news",
                     *       "decisions": [
                     *         {
                     *           "schema_version": 3,
                     *           "loop": "news",
                     *           "event_id": "019aca5e-5e1f-7c3b-9d2a-2f6f8c1d4b7e",
                     *           "slot": "",
                     *           "ts": "2026-11-28T09:00:00Z",
                     *           "subject_id": null,
                     *           "episode_id": null,
                     *           "step": null,
                     *           "context": {
                     *             "hour": 9
                     *           },
                     *           "actions": [
                     *             {},
                     *             {
                     *               "price": 3.5
                     *             }
                     *           ],
                     *           "action_ids": [
                     *             "a",
                     *             "b"
                     *           ],
                     *           "pmf": [
                     *             0.5,
                     *             0.5
                     *           ],
                     *           "action_index": 1,
                     *           "propensity": 0.5,
                     *           "pmf_baseline": [
                     *             0.5,
                     *             0.5
                     *           ],
                     *           "pmf_candidate": null,
                     *           "guard_weight": 0,
                     *           "guard_version": 0,
                     *           "mode": "online",
                     *           "deferred": false,
                     *           "policy_version": "baseline:uniform",
                     *           "baseline_version": "baseline:uniform",
                     *           "feature_snapshot": {},
                     *           "seed": 4503599627370497,
                     *           "pass_probability": 1,
                     *           "settings_version": 3,
                     *           "action_id": "b",
                     *           "scores": null,
                     *           "redrawn_index": 1,
                     *           "draw_matches": true,
                     *           "pmf_recomputed_equal": null,
                     *           "cap": null,
                     *           "pmf_uncapped": null,
                     *           "pmf_trusted": null
                     *         }
                     *       ],
                     *       "outcomes": []
                     *     }
                     */
                    "application/json": components["schemas"]["Explanation"];
                };
            };
            401: components["responses"]["Problem"];
            403: components["responses"]["Problem"];
            404: components["responses"]["Problem"];
            410: components["responses"]["Problem"];
            422: components["responses"]["Problem"];
            429: components["responses"]["Problem"];
            500: components["responses"]["Problem"];
            503: components["responses"]["Problem"];
        };
    };
}
