-- What each category came to, month by month, and how many users spent on it.
select month,
       category,
       sum(amount) as amount,
       count(distinct user_id) as users,
       cast(sum(transaction_count) as bigint) as transaction_count
from monthly_spending
group by month, category
order by month, amount desc
